"""/openapi.json and /docs: what they say is so, and whatever comes is answered without a failure inside."""

import json
import re

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from PIL import Image

from api import build_app
from api.models import Img2ImgRequest, Txt2ImgRequest
from pipeline.options import SPECS
from pipeline.processed import Processed
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.request import NUMBERS, WHOLE_NUMBERS
from tests.api.conftest import LOCAL, base64_of, client_of, running_backend

PICTURE = base64_of(Image.new("RGB", (8, 8)))
BOUNDED = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

ODD = st.sampled_from([PICTURE, "", 2**70, -1, 1e308])
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | ODD,
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
                    max_leaves=6)


@pytest.fixture(scope="module")
def document():
    """The document alone: nothing behind it runs."""
    return build_app(None, None, backend=object()).openapi()


def operations(document):
    return [(method, path) for path, item in document["paths"].items() for method in item]


OPERATIONS = operations(build_app(None, None, backend=object()).openapi())


@pytest.fixture(scope="module")
def quick(demo, tmp_path_factory):
    """A client of an application that makes a picture at once, whatever is asked for."""
    def run(p):
        image = Image.new("RGB", (8, 8))
        image.info["parameters"] = "Steps: 1"
        return Processed([image], ["Steps: 1"], [None], 0, [str(p.prompt)], [str(p.negative_prompt)], [1], [1], [])

    with (pytest.MonkeyPatch.context() as patch, running_backend(demo, [], tmp_path_factory.mktemp("quick")) as backend,
          client_of(backend) as client):
        patch.setattr("pipeline.device.run_script", run)
        yield client


@pytest.fixture(scope="module")
def validators(document):
    """(method, path, status) → what checks such answers, or None where the document gives them no shape.

    Made once, as each reads the whole document before it checks its first answer.
    """
    made = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for status, said in operation["responses"].items():
                schema = said.get("content", {}).get("application/json", {}).get("schema")
                whole = schema and schema | {"components": document["components"]}
                made[method, path, int(status)] = whole and Draft202012Validator(whole)
    return made


def body_schema(method, path, document):
    content = document["paths"][path][method].get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("schema")


def values(schema):
    """Values that a field's schema allows."""
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    made = {"integer": st.integers(low, high), "number": st.floats(low, high, allow_nan=False, allow_infinity=False),
            "string": st.text() | st.sampled_from(["Euler", "Lanczos", PICTURE]), "boolean": st.booleans(), "null": st.none(),
            "array": st.lists(JSON, max_size=3), "object": st.dictionaries(st.text(max_size=8), JSON, max_size=3)}
    return st.one_of([made[part["type"]] for part in schema.get("anyOf", [schema])])


def bodies(method, path, document):
    """Bodies that the document allows, and such with fields that hold anything."""
    schema = body_schema(method, path, document)
    if schema is None:
        return st.none()
    if "$ref" not in schema:
        return st.dictionaries(st.sampled_from(list(SPECS)) | st.text(), JSON, max_size=3) | JSON
    properties = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
    sound = {"init_images": st.just([PICTURE]), "image": st.just(PICTURE),
             "imageList": st.just([{"data": PICTURE, "name": "x"}])}
    some = st.lists(st.sampled_from(sorted(properties.keys() - sound.keys()) or sorted(properties)), max_size=4, unique=True)
    allowed = some.flatmap(lambda names: st.fixed_dictionaries({name: values(properties[name]) for name in names}))
    anything = st.dictionaries(st.sampled_from(sorted(properties)), JSON, max_size=3)
    base = st.fixed_dictionaries({name: made for name, made in sound.items() if name in properties})
    return st.builds(lambda *parts: {key: value for part in parts for key, value in part.items()}, base,
                     allowed | anything) | JSON


def check(answer, method, path, validators):
    status = answer.status_code
    assert status < 500, (method, path, answer.text[:500])
    assert (method, path, status) in validators or status in (400, 422), f"{status} is not documented"
    if validator := validators.get((method, path, status)):
        validator.validate(answer.json())


@pytest.mark.parametrize("method, path", OPERATIONS)
def test_nothing_fails_inside_and_every_answer_has_its_shape(quick, document, validators, method, path):
    takes_a_body = body_schema(method, path, document) is not None

    @settings(BOUNDED, max_examples=25 if takes_a_body else 3)
    @given(body=bodies(method, path, document), id_task=st.none() | st.text(max_size=5))
    def ask(body, id_task):
        query = {} if id_task is None else {"id_task": id_task.encode("utf-8", "replace")}
        content = json.dumps(body) if takes_a_body else None
        answer = quick.request(method, path, content=content, params=query, headers={"Content-Type": "application/json"})
        check(answer, method, path, validators)

    ask()


def test_every_field_has_its_sentence(document):
    for name, schema in document["components"]["schemas"].items():
        for field, said in schema["properties"].items():
            assert said.get("description", "").endswith("."), f"{name}.{field}"


def test_everything_that_is_referred_to_is_there(document):
    assert set(re.findall('"#/components/schemas/([^"]+)"', json.dumps(document))) == set(document["components"]["schemas"])


def test_ranges_are_the_pipelines(document):
    fields = document["components"]["schemas"]["Img2ImgRequest"]["properties"]
    for name, (low, high) in (WHOLE_NUMBERS | NUMBERS).items():
        told = [fields[name].get(bound) for bound in ("minimum", "maximum")]
        assert told == [bound if bound is None else float(bound) for bound in (low, high)], name


def test_options_are_told_with_their_words_ranges_and_choices(document):
    told = document["paths"]["/sdapi/v1/options"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert told.keys() == SPECS.keys()
    assert told["CLIP_stop_at_last_layers"] == {
        "type": "integer", "title": "Clip skip", "default": 1, "minimum": 0, "maximum": 12,
        "description": "Take the text encoder's output this many layers before its end; 0 means 1."}
    assert told["show_progress_type"]["enum"] == ["Approx cheap", "Approx NN", "TAESD", "Full"]
    for name, schema in told.items():
        Draft202012Validator(schema).validate(SPECS[name].default if SPECS[name].default is not None else "None")


def test_the_defaults_are_those_of_the_processing_object():
    fields = Img2ImgRequest.model_fields
    for name, spec in StableDiffusionProcessingImg2Img.__dataclass_fields__.items():
        if name in fields and spec.init and name not in ("mask_blur", "styles", "init_images", "reference_images", "script_args",
                                                         "alwayson_scripts", "override_settings"):
            assert fields[name].default == spec.default, name


def test_every_route_of_the_api_is_documented(document):
    paths = set(document["paths"])
    assert len(paths) > 35 and all(path.startswith(("/sdapi/v1/", "/internal/", "/controlnet/", "/adetailer/v1/")) for path in paths)
    assert all(document["paths"][path][method].get("description") for method, path in OPERATIONS)


def test_docs_is_a_page_without_scripts_and_with_every_field(quick):
    page = quick.get("/docs").text
    assert "<script" not in page and "http://" not in page and "https://" not in page
    assert all(f'<a href="#{operation["operationId"]}">' in page and f'id="{operation["operationId"]}"' in page
               for item in quick.app.openapi()["paths"].values() for operation in item.values())
    for name in (*Img2ImgRequest.model_fields, *Txt2ImgRequest.model_fields):
        assert f"<code>{name}</code>" in page
    for words in ("integer or null, from 1 to 1000", "array of string or null", "<code>true</code>"):
        assert words in page


def test_without_a_backend_there_is_no_api():
    client = TestClient(build_app(None, None), base_url=LOCAL)
    for path in ("/sdapi/v1/options", "/internal/ping", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 404
