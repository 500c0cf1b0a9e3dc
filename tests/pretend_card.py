"""A fake GPU: tensors that claim to be on it but compute on the CPU, and a record of every synchronization.

As on CUDA, mixing tensors of two devices in one operation is an error; as on MPS, so is float64. It uses torch's Python
backend for PrivateUse1, whose registration cannot be undone, so run it only in a separate process.

    python -m tests.pretend_card FOLDER      all kinds of request, as JSON: kind → {"error": …, "waits": {line: times}}
"""

import gc
import json
import os
import sys
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
MOVE, COPY = aten._to_copy.default, aten.copy_.default
READS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default, aten.is_nonzero.default, aten.masked_select.default,
         aten.repeat_interleave.Tensor, aten._unique2.default, aten.unique_dim.default)
"""Operations that return a number from the GPU to the CPU, if only a result's size."""
ONE_DTYPE = (aten.native_layer_norm.default, aten.native_group_norm.default)
"""Operations that mix precisions on the CPU but not on CUDA; others refuse it on both."""
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default,
            aten._unsafe_index.Tensor)
"""Operations that also take CPU indices."""
PIPELINE = str(Path(__file__).parents[1] / "pipeline")

waits: Counter[str] = Counter()
"""Synchronizations in the step loop, by file and function."""
coming: list[tuple[torch.Tensor, torch.Tensor]] = []
"""(tensor in main memory, what the GPU copies into it before the next event): until then, it holds something else."""
allowed: set[torch.dtype] = set()
"""float64 on CUDA, which flows compute with there."""


class Event:
    """Like torch.cuda.Event: reached at the second look, or when it is waited for."""

    def record(self, stream):
        self._coming, self._looks = coming[:], 0
        coming.clear()

    def query(self):
        self._looks += 1
        if self._looks > 1:
            self.synchronize()
        return self._looks > 1

    def synchronize(self):
        for there, copied in self._coming:
            there.copy_(copied)


class OnCard(torch.Tensor):
    """A tensor on the GPU; `held` is the CPU tensor it computes with."""

    @staticmethod
    def __new__(cls, held):
        tensor = torch.Tensor._make_wrapper_subclass(cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
                                                     dtype=held.dtype, device=torch.device("card:0"))
        tensor.held = held
        return tensor

    def __repr__(self, **_):
        return f"OnCard({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise TypeError("can't convert a card's tensor to numpy; use Tensor.cpu() first")
        if function is torch.Tensor.tolist:
            note_wait()
            return args[0].held.tolist()
        if function is torch.Tensor.untyped_storage:
            return args[0].held.untyped_storage()
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return compute(function, args, kwargs, tensors_in((*args, *kwargs.values())))


def note_wait():
    """Count a synchronization if it is in a solver's loop."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PIPELINE)]
    places = [f"{frame.filename.removeprefix(PIPELINE + os.sep)}:{frame.name}" for frame in frames]
    in_loop = any(place.startswith("samplers") and ":sample_" in place and "sampler.py" not in place for place in places)
    if in_loop:
        waits[places[-1]] += 1


def is_card(device):
    return device is not None and torch.device(device).type == "card"


def tensors_in(values):
    """All tensors of an operation's arguments. torch's own search of trees takes longer than all the computing here."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += tensors_in(value)
    return found


def changed(value, change):
    """An operation's arguments or its results, with each tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    return type(value)([changed(part, change) for part in value]) if isinstance(value, (list, tuple)) else value


def compute(function, args, kwargs, tensors):
    """The operation's result, placed like on a GPU."""
    cards = [tensor for tensor in tensors if isinstance(tensor, OnCard)]
    others = [tensor for tensor in tensors if not isinstance(tensor, OnCard)]
    if cards and others and function not in (MOVE, COPY):
        refuse_mixed(function, args, others)
    if function in ONE_DTYPE and len({tensor.dtype for tensor in tensors}) > 1:
        raise RuntimeError(f"{function}: expected one dtype, got {[tensor.dtype for tensor in tensors]}")
    device = kwargs.get("device")
    to_card, to_processor = is_card(device), device is not None and not is_card(device)
    leaves = to_processor if function is MOVE else function is COPY and not isinstance(args[0], OnCard)
    later = function is MOVE and bool(cards) and to_processor and kwargs.get("non_blocking", False)
    if cards and (function in READS or leaves and not later) or uploads(function, args, kwargs, others) or counts_true(function, args):
        note_wait()
    if to_card:
        kwargs = {**kwargs, "device": "cpu"}
    result = function(*changed(args, held), **{name: changed(value, held) for name, value in kwargs.items()})
    if function is COPY:
        return args[0]
    if later:
        coming.append((result, result.clone()))
        return result.fill_(77)
    stays = to_card or bool(cards) and not to_processor
    known = {id(held(tensor)): tensor for tensor in tensors}
    return changed(result, lambda value: placed(value, known, stays))


def uploads(function, args, kwargs, others):
    """Whether the CPU waits until a tensor, or indices, are on the GPU. A single number beside tensors is passed along."""
    if function is MOVE:
        return bool(others) and is_card(kwargs.get("device")) and not kwargs.get("non_blocking")
    if function is COPY:
        return isinstance(args[0], OnCard) and not isinstance(args[1], OnCard) and not (len(args) > 2 and args[2])
    return function in INDEXING and isinstance(args[0], OnCard) and any(
        not isinstance(index, OnCard) for index in args[1] if index is not None)


def counts_true(function, args):
    """Whether indices are found where a mask on the GPU is true."""
    return function in INDEXING and any(isinstance(index, OnCard) and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def held(tensor):
    return tensor.held if isinstance(tensor, OnCard) else tensor


def placed(value, known, on_card):
    """A result as its caller sees it; an in-place operation returns its own input."""
    if isinstance(value, OnCard):
        return value
    if id(value) in known:
        return known[id(value)]
    if on_card and value.dtype == torch.float64 and value.dtype not in allowed:
        raise TypeError("the card has no float64")
    return OnCard(value) if on_card else value


def refuse_mixed(function, args, others):
    """As in CUDA: all tensors on the GPU, except single numbers and indices."""
    wrong = [tensor for tensor in others if tensor.ndim > 0]
    if function in INDEXING:
        wrong = [tensor for tensor in wrong if tensor.dtype not in (torch.long, torch.int, torch.bool)]
        wrong += [] if isinstance(args[0], OnCard) else [args[0]]
    if wrong:
        raise RuntimeError(f"{function}: tensors of the card and of the processor, {tuple(wrong[0].shape)}")


class Dispatch(TorchDispatchMode):
    """Creates tensors on the GPU."""

    @classmethod
    def _should_skip_dynamo(cls):
        """False: nothing is compiled here, and skipping it imports torch's compiler, which is large."""
        return False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = tensors_in((*args, *kwargs.values()))
        if is_card(kwargs.get("device")) or any(isinstance(tensor, OnCard) for tensor in tensors):
            return compute(function, args, kwargs, tensors)
        return function(*args, **kwargs)


def read(numbers):
    """Numbers that torch makes a tensor of: those of the GPU are read one by one."""
    if isinstance(numbers, (list, tuple)):
        return [read(number) for number in numbers]
    return numbers.item() if isinstance(numbers, OnCard) and numbers.ndim == 0 else numbers


class FromNumbers(TorchFunctionMode):
    """Creates tensors from Python numbers below the dispatcher: on the CPU first, then moved."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor) and is_card(kwargs.get("device")):
            device = kwargs.pop("device")
            return function(read(args[0]), **kwargs).to(device)
        if function is torch.Tensor.new_tensor and isinstance(args[0], OnCard):
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to("card:0")
        if function == torch.Tensor.data.__set__ and any(isinstance(tensor, OnCard) for tensor in args):
            # weights come and go, which torch refuses between a CPU's tensor and a wrapper
            parameter, value = args[0], args[1].detach()
            is_parameter = isinstance(parameter, torch.nn.Parameter)
            torch.utils.swap_tensors(parameter, torch.nn.Parameter(value, requires_grad=False) if is_parameter else value)
            return None
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], OnCard):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, list) for part in index):
                note_wait()  # the indices are copied to the GPU
                index = tuple(torch.tensor(part) if isinstance(part, list) else part for part in index)
            value = args[2:] and (args[2] if isinstance(args[2], torch.Tensor) else
                                  torch.tensor(args[2], dtype=args[0].dtype).to("card:0"),)
            args = (args[0], index, *value)
        return function(*args, **kwargs)


# --- all kinds of request

def kinds(picture, mask):
    """Name → changes to the request."""
    from pipeline.samplers import SAMPLERS, SCHEDULES

    def options(**values):
        return {"override_settings": values}

    def script(name, *args):
        return {"script_name": name, "script_args": list(args)}

    def control(*units):
        return {"alwayson_scripts": {"ControlNet": {"args": [{"enabled": True, "image": picture} | unit for unit in units]}}}

    soft = {"mask": mask, "alwayson_scripts": {"Soft Inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}}}
    return {
        **{f"sampler {name}": {"sampler_name": name, "steps": 5} for name in SAMPLERS},
        **{f"schedule {name}": {"scheduler": name, "sampler_name": "DPM++ 2M"} for name in SCHEDULES},
        **{f"fill {fill}": {"mask": mask, "inpainting_fill": fill} for fill in range(4)},
        **{f"preview {name}": options(show_progress_type=name, show_progress_every_n_steps=1) for name in ("Full", "Approx cheap", "TAESD")},
        "mask, whole picture": {"mask": mask, "inpaint_full_res": False},
        "soft inpainting": soft, "soft inpainting, DDIM": soft | {"sampler_name": "DDIM"},
        "batches": {"batch_size": 3, "n_iter": 2}, "latent upscale": {"resize_mode": 3, "width": 96},
        "variation": {"subseed": 3, "subseed_strength": 0.3, "seed_resize_from_w": 32, "seed_resize_from_h": 32},
        "churn": {"steps": 4, "s_churn": 2.0, "sampler_name": "Euler"}, "no negative prompt late": options(s_min_uncond=5.0) | {"steps": 4},
        "guidance limits": options(guidance_start=0.2, guidance_stop=0.8) | {"steps": 4}, "tiling": {"tiling": True},
        "ControlNet": control({"model": "edges", "control_mode": 2, "effective_region_mask": mask}, {"model": "levels", "control_mode": 1}),
        "ControlNet, tile": control({"model": "edges", "module": "tile_colorfix+sharp"}) | {"sampler_name": "DDIM"},
        "IP-Adapter": control({"model": "ip-adapter-plain", "module": "CLIP-ViT-H (IPAdapter)"}),
        "upscaler": options(upscaler_for_img2img="double") | {"width": 128},
        "LoRA": {"prompt": "a house <lora:tiny:1>"}, "embedding": {"prompt": "a tinyword", "negative_prompt": "tinyword"}, "clip skip": options(CLIP_stop_at_last_layers=2),
        "refiner": {"refiner_checkpoint": "sd2-v", "refiner_switch_at": 0.5},
        "SD 2, v": options(sd_model_checkpoint="sd2-v"), "SDXL": options(sd_model_checkpoint="sdxl"),
        "SD 2, v, DDIM": options(sd_model_checkpoint="sd2-v") | {"sampler_name": "DDIM"},
        "inpainting checkpoint": options(sd_model_checkpoint="sd1-inpainting") | {"mask": mask},
        "edit checkpoint": options(sd_model_checkpoint="sd1-edit") | {"prompt": "a house", "image_cfg_scale": 1.3},
        "step cache": options(step_cache_interval=2) | {"steps": 4}, "step cache by need": options(step_cache_threshold=0.2) | {"steps": 4}, "edit reuse": options(edit_reuse=True) | {"mask": mask},
        "token merging": options(token_merging_ratio=0.5), "long prompt": {"prompt": "a house BREAK a tree " * 20},
        "padded": options(pad_cond_uncond=True) | {"prompt": "a " * 90}, "NV noise": options(randn_source="NV"),
        "quantized": options(enable_quantization=True, use_downcasted_alpha_bar=True, sd_noise_schedule="Zero Terminal SNR") | {"steps": 4},
        "cheap decode": options(sd_vae_decode_method="Approx cheap"), "color correction": options(img2img_color_correction=True),
        "one noise for all": options(no_dpmpp_sde_batch_determinism=True) | {"sampler_name": "DPM++ SDE"},
        "one by one": options(batch_cond_uncond=False),
        "img2img alternative": script("img2img alternative test", None, True, True, "", "", True, 4, True, 1.0, 0.0, False),
        "loopback": script("Loopback", 2, 0.5, "Linear", "None"),
        "outpainting": script("Outpainting mk2", None, 32, 8, ["left"], 1.0, 0.05),
        "SD upscale": script("SD upscale", None, 16, "None", 2.0),
    }


FROM_NOISE = {
    "txt2img": {}, "txt2img, batches": {"batch_size": 2, "n_iter": 2}, "txt2img, refiner": {"refiner_checkpoint": "sd2-v", "refiner_switch_at": 0.5},
    "txt2img, inpainting checkpoint": {"override_settings": {"sd_model_checkpoint": "sd1-inpainting"}},
    "txt2img, edit checkpoint": {"override_settings": {"sd_model_checkpoint": "sd1-edit"}, "prompt": "a house"},
    "txt2img, SDXL": {"override_settings": {"sd_model_checkpoint": "sdxl"}},
}
"""The same for txt2img."""
IN_HALF = ("sampler Euler a", "sampler DPM++ SDE", "sampler DDIM", "ControlNet", "mask, whole picture", "soft inpainting, DDIM", "LoRA", "embedding", "refiner", "SDXL",
             "SD 2, v", "inpainting checkpoint", "edit checkpoint", "step cache", "step cache by need", "token merging", "preview Full", "txt2img", "IP-Adapter")
"""Requests to run in half precision too."""
OFFLOADED = ("sampler Euler", "LoRA", "SDXL", "ControlNet", "refiner")
"""Requests to run with each layer on the GPU only while it computes."""
FLOWS = ("z-image", "flux2-klein", "flux1-dev", "flux1-fill", "flux1-kontext", "qwen-image", "qwen-image-edit 2511")
"""Kinds of tests.families.flow_runs, to run in bfloat16: from noise, and inpainting."""
SEE_REFERENCES = ("flux2-klein", "qwen-image-edit 2511")
SEGMENTERS = ("sam", "sam2")


def write_models(folder):
    """Write tiny models of all kinds; the first checkpoint has a LoRA, an embedding, a ControlNet and an adapter."""
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file, save_file

    from tests.families import tiny, tiny_controls, tiny_sam
    from tests.families.flow_runs import KINDS
    from tests.upscalers import tiny as tiny_upscalers

    made = folder / "Stable-diffusion"
    for kind in ("sd1", "sd1-inpainting", "sd1-edit", "sd2-v", "sdxl"):
        diffusers, _ = tiny.make(kind, made)
        if kind == "sd1":
            weights = load_file(next((diffusers / "unet").glob("*.safetensors")))
            name = next(name for name in weights if name.endswith("attn1.to_q.weight"))
            out, into = weights[name].shape
            layer = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            (folder / "Lora").mkdir(parents=True)
            (folder / "embeddings").mkdir()
            (folder / "ControlNet").mkdir()
            unet = UNet2DConditionModel.from_pretrained(diffusers / "unet")
            tiny_controls.saved(tiny_controls.controlnet(unet).state_dict(), folder / "ControlNet" / "edges.safetensors")
            tiny_controls.saved(tiny_controls.adapter(unet, "full_adapter").state_dict(), folder / "ControlNet" / "levels.safetensors")
            tiny_controls.saved(tiny_controls.flat(tiny_controls.ip_adapter(unet, "plain")), folder / "ControlNet" / "ip-adapter-plain.safetensors")
            tiny_controls.clip_vision().save_pretrained(folder / "clip_vision" / "vit-h", safe_serialization=True)
            save_file({"emb_params": torch.ones(2, tiny.WIDTH)}, folder / "embeddings" / "tinyword.safetensors")
            save_file({f"{layer}.lora_up.weight": torch.ones(out, 2), f"{layer}.lora_down.weight": torch.ones(2, into)},
                      folder / "Lora" / "tiny.safetensors")
    for kind in FLOWS:
        KINDS[kind].make(folder / "flows" / kind).file.rename(made / f"{kind}.safetensors")
    for kind in SEGMENTERS:
        tiny_sam.save(folder / "sam" / kind, kind)
    tiny_upscalers.saved(tiny_upscalers.real_esrgan(2), folder / "ESRGAN" / "double.safetensors")
    return made / "sd1.safetensors"


def ask_all(folder):
    """Every kind of request on the GPU: name → its error, its comments, and its synchronizations in the step loop."""
    import numpy as np
    from PIL import Image, ImageDraw

    from app import make_engine
    from pipeline import families, rng
    from pipeline.arriving import Arriving
    from pipeline.families import qwen_image
    from pipeline.engine import LocalEngine
    from pipeline.families.placement import Placement
    from pipeline.families.sam import Prompt
    from pipeline.loading import ModelStore
    from pipeline.models import Catalog
    from pipeline.options import Options
    from pipeline.processing import StableDiffusionProcessingImg2Img
    from pipeline.styles import StyleDatabase
    from pipeline.txt2img import StableDiffusionProcessingTxt2Img

    first = write_models(folder)
    gc.freeze()  # every load collects garbage, and there is none in what was imported
    torch.utils.backend_registration._setup_privateuseone_for_python_backend("card")
    torch.card.Event, torch.card.current_stream = Event, lambda device: None
    torch.inference_mode = lambda mode=True: torch.no_grad()  # tensor wrappers cannot be inference tensors
    stream, work = rng.normal_stream, LocalEngine._work
    # a GPU draws noise on itself, which cannot be simulated
    rng.normal_stream = lambda seed, *, source, device: stream(seed, source="CPU" if source == "GPU" else source, device=device)

    def work_with_card(engine, station):
        with Dispatch(), FromNumbers():
            work(engine, station)

    LocalEngine._work = work_with_card
    catalog = Catalog(folder)

    def engine_in(dtype, vae_dtype=torch.float32, offload="none"):
        def load(path, place, *args, **how):
            return families.load(path, replace(place, offload=offload), *args, **how)

        place = Placement(torch.device("card:0"), dtype, vae_dtype)
        models = ModelStore(catalog, place, catalog.add(first), free=lambda device: 1 << 40, keep=4, load=load)  # read once each
        return make_engine(models, Options(), StyleDatabase(None))

    picture, mask = Image.new("RGB", (64, 64), "teal"), Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((16, 16, 48, 40), fill=200)
    usual = {"init_images": [picture], "steps": 2, "width": 64, "height": 64, "sampler_name": "Euler a", "seed": 5,
             "prompt": "a (red:1.2) house [by:at:0.5] night AND a tree", "denoising_strength": 0.7}
    from_noise = {name: value for name, value in usual.items() if name not in ("init_images", "denoising_strength")}
    requests = {name: (StableDiffusionProcessingImg2Img, usual | change) for name, change in kinds(picture, mask).items()}
    requests |= {name: (StableDiffusionProcessingTxt2Img, from_noise | change) for name, change in FROM_NOISE.items()}
    told = {}

    def ask(name, engine, kind, fields):
        waits.clear()
        error, comments = None, []
        try:
            comments = engine.submit([kind(**fields)]).result()[0].comments
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"[:300]
        told[name] = {"error": error, "comments": comments, "waits": dict(waits)}

    for where, engine, names in (("", engine_in(torch.float32), requests), ("float16, ", engine_in(torch.float16), IN_HALF),
                                 ("one layer at a time, ", engine_in(torch.float16, offload="sequential"), OFFLOADED)):
        for name in names:
            ask(where + name, engine, *requests[name])
    allowed.add(torch.float64)
    engine = engine_in(torch.bfloat16, torch.bfloat16)
    references = {"reference_images": [picture, picture.resize((80, 64))]}
    simple = {"prompt": "a house", "sampler_name": "Euler", "scheduler": "Simple", "steps": 2, "cfg_scale": 2.0}
    qwen_image.REFERENCE_AREA = 64 * 64
    for name in FLOWS:
        fields = simple | {"override_settings": {"sd_model_checkpoint": name}} | (references if name in SEE_REFERENCES else {})
        if name != "flux1-fill":
            ask(f"{name}, from noise", engine, StableDiffusionProcessingTxt2Img, from_noise | fields)
        ask(f"{name}, mask", engine, StableDiffusionProcessingImg2Img, usual | fields | {"mask": mask})
    with Dispatch(), FromNumbers():
        for name in SEGMENTERS:
            engine.segment(name, np.asarray(picture), name, Prompt(((30.0, 30.0, True),)))
        copy = Arriving((tensor := torch.arange(3.0)).to("card:0"))
        assert not copy.arrived and torch.equal(copy.get(), tensor), "a copy is read before it is there"
    return told


if __name__ == "__main__":
    print(json.dumps(ask_all(Path(sys.argv[1]))), flush=True)
    os._exit(0)  # the engine's thread goes on with a backend that cannot be taken away
