"""Tags in a prompt as requests."""

import pytest

from pipeline.errors import InvalidRequest
from pipeline.networks import NetworkRequest, read_tags
from pipeline.prompt_parser import extract_networks


def requests(prompt):
    return read_tags(extract_networks(prompt)[1])


@pytest.mark.parametrize("tag, wanted", [
    ("<lora:x>", NetworkRequest("x", 1.0, 1.0)),
    ("<lora:x:0.5>", NetworkRequest("x", 0.5, 0.5)),
    ("<lyco:x:0.5>", NetworkRequest("x", 0.5, 0.5)),
    ("<lora:x:0.5:-2>", NetworkRequest("x", 0.5, -2.0)),
    ("<lora:x:0.5:1:4>", NetworkRequest("x", 0.5, 1.0, 4)),
    ("<lora:x:te=0.5>", NetworkRequest("x", 0.5, 0.5)),
    ("<lora:x:unet=0.5>", NetworkRequest("x", 1.0, 0.5)),
    ("<lora:x:0.3:te=0.5:dyn=4>", NetworkRequest("x", 0.5, 0.5, 4)),
])
def test_numbers_stand_in_order_or_by_name_and_unet_follows_te(tag, wanted):
    assert requests(tag) == [wanted]


def test_order_is_kept_and_other_kinds_are_left():
    assert [request.name for request in requests("<lora:b> <hypernet:h> a <lora:a>")] == ["b", "a"]


def test_a_network_named_twice_acts_twice_with_the_last_numbers():
    x, y = NetworkRequest("x", 2, 2), NetworkRequest("y")
    assert requests("<lora:x:0.5><lora:y><lora:x:2>") == [x, y, x]


@pytest.mark.parametrize("tag, sentence", [
    ("<lora:x:strong>", 'prompt: a multiplier of the LoRA "x" must be a number, got "strong"'),
    ("<lora:x:1:nan>", 'prompt: a multiplier of the LoRA "x" must be a number, got "nan"'),
    ("<lora:x:1:1:0>", 'prompt: dyn of the LoRA "x" must be a whole number of at least 1, got "0"'),
    ("<lora:x:1:1:half>", 'prompt: dyn of the LoRA "x" must be a whole number of at least 1, got "half"'),
    ("<lora:te=1>", "prompt: <lora:…> must name a file first, as in <lora:name:0.8>"),
])
def test_a_bad_number_is_refused(tag, sentence):
    with pytest.raises(InvalidRequest) as error:
        requests(tag)
    assert (error.value.field, str(error.value)) == ("prompt", sentence)
