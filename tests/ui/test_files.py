"""Files: a visitor reaches what they uploaded and what they were shown, and nothing else of the machine."""

import json
import urllib.error
import urllib.request
import uuid

import pytest


def call(server, path, data=None):
    request = urllib.request.Request(server.url + path, None if data is None else json.dumps(data).encode(),
                                     {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=60)


def generate_with(server, path):
    """Press img2img's Generate with a picture that is said to be at `path`; the event stream's text."""
    config = json.load(call(server, "/config"))
    button = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "generate-img2img")
    event = next(d for d in config["dependencies"] if [button, "click"] in d["targets"])
    values = {c["id"]: c["props"].get("value") for c in config["components"]}
    data = [values.get(component) for component in event["inputs"]]
    canvas = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "img2img-picture")
    picture = {"path": path, "orig_name": "picture.png", "meta": {"_type": "gradio.FileData"}}
    data[event["inputs"].index(canvas)] = {"canvas": "img2img-picture", "picture": picture}
    session = uuid.uuid4().hex
    call(server, "/gradio_api/queue/join", {"data": data, "fn_index": event["id"], "session_hash": session})
    return call(server, f"/gradio_api/queue/data?session_hash={session}").read().decode()


def test_a_file_of_the_machine_named_as_a_picture_is_refused(server, tmp_path):
    secret = server.outputs.parent / "secret.png"
    secret.write_bytes(b"not for you")
    answer = generate_with(server, str(secret))
    assert "A file of this page no longer exists" in answer and "not for you" not in answer and str(secret) not in answer


@pytest.mark.parametrize("path", ["/etc/hostname", "app.py", "../etc/hostname"])
def test_a_file_of_the_machine_is_not_served(server, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        call(server, f"/gradio_api/file={path}")
    assert error.value.code in (403, 404)
