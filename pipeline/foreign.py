"""Generation data of other programs as infotext: ComfyUI, InvokeAI, Fooocus, SwarmUI and NovelAI.

Pure functions. The data is untrusted: anything of an unexpected form is skipped.
"""

import json
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from pipeline.infotext import infotext

MAX_JSON = 4 << 20
"""Characters of a text that is parsed as JSON."""
MAX_HIDDEN = 1 << 20
"""Bytes of a text hidden in pixels."""
MAX_NODES, MAX_SAMPLERS = 10_000, 20
"""How many of a workflow's are looked at."""
Items = Mapping[str, Any]

SAMPLERS = {
    "euler": "Euler", "euler_ancestral": "Euler a", "heun": "Heun", "dpm_2": "DPM2", "dpm_2_ancestral": "DPM2 a", "lms": "LMS",
    "dpm_fast": "DPM fast", "dpm_adaptive": "DPM adaptive", "dpmpp_2s_ancestral": "DPM++ 2S a", "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M", "dpmpp_2m_sde": "DPM++ 2M SDE", "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_3m_sde": "DPM++ 3M SDE", "ddim": "DDIM", "uni_pc": "UniPC", "uni_pc_bh2": "UniPC", "lcm": "LCM",
    "restart": "Restart", "unipc": "UniPC", "plms": "PLMS", "pndm": "PLMS", "euler_a": "Euler a", "kdpm_2": "DPM2",
    "kdpm_2_a": "DPM2 a", "dpmpp_2s": "DPM++ 2S a",
}
"""k-diffusion's names, as used by ComfyUI, Fooocus, SwarmUI and, without their suffixes, InvokeAI."""
SCHEDULES = {
    "normal": "Normal", "karras": "Karras", "exponential": "Exponential", "sgm_uniform": "SGM Uniform", "simple": "Simple",
    "ddim_uniform": "DDIM", "beta": "Beta", "kl_optimal": "KL Optimal", "align_your_steps": "Align Your Steps",
    "ays": "Align Your Steps", "polyexponential": "Polyexponential",
}
NOVELAI_SAMPLERS = {
    "k_euler": "Euler", "k_lms": "LMS", "k_heun": "Heun", "k_dpm_2": "DPM2", "k_dpm_fast": "DPM fast",
    "k_dpmpp_2m": "DPM++ 2M", "k_dpmpp_sde": "DPM++ SDE", "k_dpmpp_2m_sde": "DPM++ 2M SDE",
    "ddim": "DDIM", "plms": "PLMS",
}
"""Any other name is read as Euler a."""


@dataclass(frozen=True)
class Found:
    """What another program wrote into a picture."""

    program: str
    infotext: str | None = None
    items: dict[str, str] = field(default_factory=dict)
    """Its other texts, by name."""


def read(text: str | None, items: Items, size: tuple[int, int]) -> Found | None:
    """Another program's generation data in a picture of that size, or None.

    text: the file's "parameters". items: its other texts, by name.
    """
    written = load_json(text)
    for program, reader in READERS.items():
        if text and written is None and program != "NovelAI":  # NovelAI's items say more than its text
            continue
        try:
            made = reader(written, items, size)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError):  # not written by that program
            continue
        if made is not None:
            return Found(program, mended(made) or None, {"parameters": text} if written is not None else {})
    return None


def load_json(text: object) -> dict[str, Any] | None:
    """The JSON object in a text, or None."""
    if not isinstance(text, str) or len(text) > MAX_JSON or not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def mended(text: str) -> str:
    """The text without unpaired surrogates, which JSON can hold but UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_infotext(prompt: object, negative_prompt: object, **params: object) -> str:
    """Infotext of the known values; "cfg_scale" stands for "CFG scale". Only text and numbers are written."""
    names = {"cfg_scale": "CFG scale"}
    values = {names.get(name, name.capitalize().replace("_", " ")): plain_value(value) for name, value in params.items()}
    known = {name: value for name, value in values.items() if value not in (None, "")}
    return infotext(*(text if isinstance(text, str) else "" for text in (prompt, negative_prompt)), known) if known else ""


def plain_value(value: object) -> str | int | float | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def size_text(width: object, height: object, size: tuple[int, int]) -> str:
    """Width and height as infotext has them; the picture's own if they are not integers."""
    if isinstance(width, int) and isinstance(height, int):
        return f"{width}x{height}"
    return f"{size[0]}x{size[1]}"


def sampler_name(name: object) -> str | None:
    """A1111's name of a sampler; unknown names are kept."""
    if not isinstance(name, str):
        return None
    return SAMPLERS.get(re.sub(r"_gpu$", "", name.lower()), name)


def schedule_name(name: object) -> str | None:
    return SCHEDULES.get(name.lower()) if isinstance(name, str) else None


def model_name(file: object) -> str | None:
    """A model's name from its file's path, without folder and extension."""
    if not isinstance(file, str):
        return None
    name = PurePosixPath(file.replace("\\", "/")).name
    return re.sub(r"\.(safetensors|ckpt|pt|pth|bin|sft|gguf)$", "", name)


# --- Fooocus and SwarmUI, which write one object

def fooocus(written: dict[str, Any] | None, items: Items, size: tuple[int, int]) -> str | None:
    """Infotext of Fooocus's data; None if it is not Fooocus's."""
    said = {key.lower().replace(" ", "_"): value for key, value in (written or {}).items()}
    if "base_model" not in said and "fooocus_scheme" not in items:
        return None
    numbers = [int(side) for side in re.findall(r"\d+", str(said.get("resolution", "")))]
    if "guidance_scale" not in said and "prompt" not in said:
        return None
    return as_infotext(said.get("prompt"), said.get("negative_prompt"), steps=said.get("steps"), sampler=sampler_name(said.get("sampler")),
                       schedule_type=schedule_name(said.get("scheduler")), cfg_scale=said.get("guidance_scale"), seed=said.get("seed"),
                       size=size_text(*(numbers if len(numbers) == 2 else (None, None)), size), model_hash=said.get("base_model_hash"),
                       model=model_name(said.get("base_model")))


def swarmui(written: dict[str, Any] | None, items: Items, size: tuple[int, int]) -> str | None:
    """Infotext of SwarmUI's data; None if it is not SwarmUI's."""
    if written is None or not isinstance(written.get("sui_image_params"), dict):
        return None
    said = written["sui_image_params"]
    prompt, names, weights = said.get("prompt"), said.get("loras") or [], said.get("loraweights") or []
    if isinstance(prompt, str) and isinstance(names, list) and isinstance(weights, list):
        prompt += "".join(f"<lora:{model_name(name)}:{weight}>" for name, weight in zip(names, [*weights, *["1"] * len(names)]))
    return as_infotext(prompt, said.get("negativeprompt"), steps=said.get("steps"), sampler=sampler_name(said.get("sampler")),
                       schedule_type=schedule_name(said.get("scheduler")), cfg_scale=said.get("cfgscale"), seed=said.get("seed"),
                       size=size_text(said.get("width"), said.get("height"), size), model=model_name(said.get("model")),
                       denoising_strength=said.get("initimagecreativity"))


# --- InvokeAI

def invokeai(written: dict[str, Any] | None, items: Items, size: tuple[int, int]) -> str | None:
    """Formats of version 3 and later, of 2, and of 1."""
    if said := load_json(items.get("invokeai_metadata")):
        model = said.get("model") or {}
        return as_infotext(said.get("positive_prompt"), said.get("negative_prompt"), steps=said.get("steps"),
                           **invokeai_sampler(said.get("scheduler")), cfg_scale=said.get("cfg_scale"), seed=said.get("seed"),
                           size=size_text(said.get("width"), said.get("height"), size),
                           model=model_name(model.get("name") or model.get("model_name")), denoising_strength=said.get("strength"))
    if said := load_json(items.get("sd-metadata")):
        made = said["image"]
        prompts = made["prompt"]
        prompt = prompts if isinstance(prompts, str) else ", ".join(part["prompt"] for part in prompts)
        return as_infotext(*bracketed(prompt), steps=made.get("steps"), **invokeai_sampler(made.get("sampler")),
                           cfg_scale=made.get("cfg_scale"), seed=made.get("seed"),
                           size=size_text(made.get("width"), made.get("height"), size), model=model_name(said.get("model_weights")))
    if isinstance(command := items.get("Dream"), str) and len(command) <= MAX_HIDDEN:
        prompt, _, rest = command.strip().lstrip('"').partition('" ')
        flags = dict(re.findall(r"-([sSWHCA])\s*(\S+)", rest))
        return as_infotext(*bracketed(prompt), steps=flags.get("s"), **invokeai_sampler(flags.get("A")), cfg_scale=flags.get("C"),
                           seed=flags.get("S"), size=f"{flags['W']}x{flags['H']}" if {"W", "H"} <= flags.keys() else size_text(0.0, 0, size))
    return None


def bracketed(prompt: str) -> tuple[str, str]:
    """(prompt, negative prompt); InvokeAI 2 has the latter in brackets."""
    negative = r"\[([^\[\]]*)\]"
    return re.sub(" {2,}", " ", re.sub(negative, "", prompt)).strip(), ", ".join(re.findall(negative, prompt))


def invokeai_sampler(name: object) -> dict[str, str | None]:
    """Sampler and schedule from a name such as "dpmpp_2m_sde_k", where _k means Karras."""
    if not isinstance(name, str):
        return {}
    bare = name.lower().removeprefix("k_")
    karras = bare.endswith("_k")
    bare = bare.removesuffix("_k")
    return {"sampler": sampler_name(bare) if bare in SAMPLERS else name, "schedule_type": "Karras" if karras else None}


# --- ComfyUI

@dataclass(frozen=True)
class Node:
    """A node of a workflow in the API format."""

    kind: str
    inputs: dict[str, Any]


Graph = dict[str, Node]
TEXTS = ("text", "text_g", "text_l", "t5xxl", "clip_l", "prompt", "string", "value")
"""Inputs that hold a prompt, most specific first."""
SOURCES = ("conditioning", "conditioning_1", "conditioning_to", "text", "string", "prompt")
"""Inputs to follow to the prompt if none is called positive or negative."""


def comfyui(written: dict[str, Any] | None, items: Items, size: tuple[int, int]) -> str | None:
    """Infotext of the workflow's first sampler, the one with no other sampler before it; "" if there is none."""
    said = load_json(items.get("prompt"))
    if said is None:
        return "" if load_json(items.get("workflow")) else None
    graph = {key: Node(node["class_type"], node["inputs"]) for key, node in list(said.items())[:MAX_NODES]
             if isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)}
    if not graph:
        return None
    start = first_sampler(graph)
    if start is None:
        return ""
    nodes = list(upstream(graph, start))

    def nearest(*names: str) -> Any:
        return next((value for node in nodes for name in names
                     if isinstance(value := settled(graph, node.inputs.get(name)), str | int | float)), None)

    loras = "".join(f"<lora:{model_name(name)}:{plain_value(node.inputs.get('strength_model', 1))}>"
                    for node in nodes if isinstance(name := node.inputs.get("lora_name"), str))
    strength = nearest("denoise")
    return as_infotext(prompt_of(graph, start, "positive") + loras, prompt_of(graph, start, "negative"), steps=nearest("steps"),
                       sampler=sampler_name(nearest("sampler_name")), schedule_type=schedule_name(nearest("scheduler")),
                       cfg_scale=nearest("cfg"), seed=nearest("seed", "noise_seed"),
                       size=size_text(nearest("width"), nearest("height"), size),
                       model=model_name(nearest("ckpt_name", "unet_name")), denoising_strength=strength if strength != 1 else None)


def is_sampler(node: Node) -> bool:
    return "positive" in node.inputs and bool({"seed", "noise_seed"} & node.inputs.keys()) or (
        {"noise", "guider", "sampler", "sigmas"} <= node.inputs.keys())


def first_sampler(graph: Graph) -> str | None:
    samplers = [key for key, node in graph.items() if is_sampler(node)][:MAX_SAMPLERS]
    alone = (key for key in samplers if sum(map(is_sampler, upstream(graph, key))) == 1)
    return next(alone, next(iter(samplers), None))


def upstream(graph: Graph, start: str) -> Iterator[Node]:
    """A node and everything it depends on, nearest first."""
    waiting, seen = deque([start]), {start}
    while waiting:
        node = graph[waiting.popleft()]
        yield node
        links = [link[0] for link in node.inputs.values() if is_link(graph, link) and link[0] not in seen]
        seen.update(links)
        waiting.extend(dict.fromkeys(links))


def is_link(graph: Graph, value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] in graph


def settled(graph: Graph, value: Any) -> Any:
    """An input's value, followed through nodes that only hold a value."""
    for _ in range(8):
        if not is_link(graph, value):
            return value
        inputs = graph[value[0]].inputs
        value = next((inputs[name] for name in ("value", "seed", "noise_seed", "int", "float", "number", "string", "text")
                      if name in inputs), None)
    return None


def prompt_of(graph: Graph, start: str, side: str) -> str:
    """The text behind a sampler's conditioning, followed through nodes that modify it; "" if none is found."""
    sampler = graph[start].inputs
    if is_link(graph, sampler.get("guider")):
        sampler = graph[sampler["guider"][0]].inputs
    first = sampler.get(side, sampler.get("conditioning") if side == "positive" else None)
    waiting = deque([first[0]] if is_link(graph, first) else [])
    seen = set(waiting)
    while waiting:
        node = graph[waiting.popleft()]
        if node.kind == "ConditioningZeroOut":  # its input has no effect
            continue
        texts = (node.inputs.get(name) for name in (side, *TEXTS))
        if text := next((text for text in texts if isinstance(text, str) and text), None):
            return text
        links = [link[0] for name in (side, *SOURCES) if is_link(graph, link := node.inputs.get(name)) and link[0] not in seen]
        seen.update(links)
        waiting.extend(dict.fromkeys(links))
    return first if isinstance(first, str) else ""


# --- NovelAI

def novelai(written: dict[str, Any] | None, items: Items, size: tuple[int, int]) -> str | None:
    """Infotext of NovelAI's data; None if it is not NovelAI's."""
    if items.get("Software") != "NovelAI":
        return None
    made = json.loads(items["Comment"])
    params = {"Steps": made["steps"], "Sampler": NOVELAI_SAMPLERS.get(made["sampler"], "Euler a"), "CFG scale": made["scale"],
              "Seed": made["seed"], "Size": f"{size[0]}x{size[1]}", "Clip skip": "2", "ENSD": "31337"}
    return infotext(items["Description"], made["uc"], params)


READERS: dict[str, Callable[[dict[str, Any] | None, Items, tuple[int, int]], str | None]] = {
    "NovelAI": novelai, "SwarmUI": swarmui, "Fooocus": fooocus, "InvokeAI": invokeai, "ComfyUI": comfyui}
"""By program: (the "parameters" as JSON, the other texts, the picture's size) → infotext; "" if it is that program's picture
without usable data, None if it is not."""


# --- hidden in pixels

SIGNATURES = {b"stealth_pnginfo": ("A", False), b"stealth_pngcomp": ("A", True), b"stealth_rgbinfo": ("RGB", False),
              b"stealth_rgbcomp": ("RGB", True)}
"""The marker before a hidden text: which channels' lowest bits hold it, column by column, and whether it is compressed."""
SIGNED = len(b"stealth_pnginfo")
HIDING = "a program that hides text in pixels"


def read_stealth(image: Image.Image) -> Found | None:
    """The text hidden in a picture's pixels, or None."""
    for channels in ("A", "RGB"):
        if set(channels) <= set(image.getbands()) and (text := hidden_text(image, channels)) is not None:
            said = load_json(text)
            if said is None:
                return Found(HIDING, text)
            # NovelAI hides a copy of its text chunks
            texts = {mended(name): mended(value) for name, value in said.items() if isinstance(value, str)}
            return read(text, texts, image.size) or Found(HIDING, None, texts)
    return None


def hidden_text(image: Image.Image, channels: str) -> str | None:
    """The text hidden in those channels, or None if there is none or it cannot be read."""
    columns = min(-(-(SIGNED + 4) * 8 // (image.height * len(channels))), image.width)
    start = lowest_bytes(image, channels, columns)
    place, packed = SIGNATURES.get(start[:SIGNED], (None, False))
    if place != channels or len(start) < SIGNED + 4:
        return None
    length = -(-int.from_bytes(start[SIGNED:SIGNED + 4], "big") // 8)
    if length > MAX_HIDDEN:
        return None
    end = SIGNED + 4 + length
    data = lowest_bytes(image, channels, min(-(-end * 8 // (image.height * len(channels))), image.width))[SIGNED + 4:end]
    try:
        return (zlib.decompressobj(31).decompress(data, MAX_HIDDEN) if packed else data).decode("utf-8")
    except (zlib.error, UnicodeDecodeError):
        return None


def lowest_bytes(image: Image.Image, channels: str, columns: int) -> bytes:
    """The lowest bits of the first columns, top to bottom, packed eight to a byte."""
    part = image.crop((0, 0, columns, image.height))
    planes = [np.asarray(part.getchannel(channel)) for channel in channels]
    bits = np.stack(planes, axis=-1).transpose(1, 0, 2).ravel() & 1
    return np.packbits(bits).tobytes()
