"""Pictures as text: base64 of any length, and JSON around it."""

import base64
import json

import pytest

from api.pictures import PIECE, decode_base64, encode_base64, json_with_pictures


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 5])
def test_base64_of_any_length_is_that_of_the_whole(size):
    data = bytes(range(251)) * (size // 251 + 1)
    text = encode_base64(data[:size])
    assert text == base64.b64encode(data[:size]).decode() and decode_base64(text) == data[:size]


def test_line_breaks_and_the_like_are_passed_over():
    data = bytes(PIECE)
    assert decode_base64(base64.encodebytes(data).decode()) == decode_base64(" -" + encode_base64(data)) == data


@pytest.mark.parametrize("text", ["a", "YQ", "YWJj" * PIECE + "Y", "ü"])
def test_what_is_cut_short_is_no_base64(text):
    with pytest.raises(ValueError):
        decode_base64(text)


@pytest.mark.parametrize("pictures", ["aGk=", None, [], ["aGk="], ["aGk=", "/+8="]])
def test_the_json_is_that_of_the_whole(pictures):
    assert json.loads(json_with_pictures("images", pictures, {"info": "ü"})) == {"images": pictures, "info": "ü"}
