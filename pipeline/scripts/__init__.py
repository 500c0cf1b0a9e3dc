"""Scripts: ways to run a request other than once as it is. A new one is a file here and a row in SCRIPTS."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import adetailer as details
from pipeline.controlnet import units
from pipeline.errors import InvalidRequest, UnknownName
from pipeline.hooks import HookList, Hooks
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from pipeline.record import asked
from pipeline.scripts import (
    adetailer,
    arguments,
    controlnet,
    each_island,
    img2img_alternative,
    loopback,
    mask_each,
    outpainting_mk2,
    poor_mans_outpainting,
    prompt_matrix,
    prompts_from_file,
    sd_upscale,
    soft_inpainting,
    xyz_plot,
)
from pipeline.scripts.arguments import Argument


@dataclass(frozen=True)
class Script:
    """A script as A1111 lists it."""

    title: str
    record: type
    """Its arguments."""
    run: Callable[[StableDiffusionProcessingImg2Img, Any], Processed]
    """(request, record) → result. The request is bound; the script must not change it."""
    needs_source: bool = True
    """Whether it needs a source picture, and so cannot run in txt2img."""
    divides: bool = False
    """Whether each of its runs follows from the request alone, and not from another run's pictures."""

    @property
    def arguments(self) -> list[Argument]:
        return arguments.describe(self.record)


@dataclass(frozen=True)
class AlwaysOn:
    """A script that acts inside every run of a request, including runs by another script."""

    title: str
    record: type
    """Its arguments; `enabled` says whether it acts."""
    hooks: Callable[[Any], Hooks]
    read: Callable[[Any], Any] | None = None
    """Fills the record from a request's list; None: the record's fields in order."""
    uses_greys: bool = False
    """Whether a mask's greys then count as partial masking."""
    needs_source: bool = True
    """Whether it has no effect in txt2img."""
    in_details: bool = False
    """Whether it acts in ADetailer's passes too."""

    @property
    def arguments(self) -> list[Argument]:
        """Empty if the list has another form than one value per argument."""
        return arguments.describe(self.record) if self.read is None else []


EACH_ISLAND = "Each masked area by itself"

SCRIPTS = {script.title.lower(): script for script in (
    Script("img2img alternative test", img2img_alternative.Img2ImgAlternative, img2img_alternative.run),
    Script("Loopback", loopback.Loopback, loopback.run),
    Script("Outpainting mk2", outpainting_mk2.OutpaintingMk2, outpainting_mk2.run),
    Script("Poor man's outpainting", poor_mans_outpainting.PoorMansOutpainting, poor_mans_outpainting.run),
    Script("Prompt matrix", prompt_matrix.PromptMatrix, prompt_matrix.run, needs_source=False, divides=True),
    Script("Prompts from file or textbox", prompts_from_file.PromptsFromFile, prompts_from_file.run, needs_source=False, divides=True),
    Script("SD upscale", sd_upscale.SDUpscale, sd_upscale.run, divides=True),
    Script("X/Y/Z plot", xyz_plot.XYZPlot, xyz_plot.run, needs_source=False, divides=True),
    Script(EACH_ISLAND, each_island.EachIsland, each_island.run),
)}
ALWAYS_ON = {script.title.lower(): script for script in (
    AlwaysOn("Soft Inpainting", soft_inpainting.SoftInpainting, soft_inpainting.SoftHooks, uses_greys=True, in_details=True),
    AlwaysOn(units.TITLE, units.Units, controlnet.ControlHooks, read=units.read_units, needs_source=False),
    AlwaysOn(details.TITLE, details.Details, adetailer.DetailHooks, read=adetailer.read, needs_source=False),
)}
"""Both by lower-case title, in A1111's order, followed by our own."""


def run(p: StableDiffusionProcessingImg2Img) -> Processed:
    """The result of the request: from its script, or from running it once. Raises InvalidRequest."""
    script, args, hooks = resolve(p)
    p.receipts.begin(asked(p))
    p = hooked(p, hooks)
    if isinstance(p.image_mask, list):
        return mask_each.run(p)
    if script is None:
        p.progress.begin(p.n_iter)
        return with_maps(process_images(p), hooks)
    return script.run(p, args)


def divides(p: StableDiffusionProcessingImg2Img) -> bool:
    """Whether the request's batches can be computed in any order, and so by several workers."""
    script = SCRIPTS.get(str(p.script_name).lower())
    return p.replay is None and (not p.script_name or (script is not None and script.divides))


def hooked(p: StableDiffusionProcessingImg2Img, hooks: list[Hooks]) -> StableDiffusionProcessingImg2Img:
    """The request with the hooks of its always-on scripts."""
    if not hooks:
        return p
    rounds, plugins, given = settled_mask(p)["round"], p.scripts, always_on(p.alwayson_scripts)
    for hook in hooks:
        if isinstance(hook, adetailer.DetailHooks):
            hook.companions = lambda: [plugins, *(script.hooks(args) for script, args in given if args.enabled and script.in_details)]
            hook.units = next((args for _, args in given if isinstance(args, units.Units)), hook.units)
    p = p.variant()
    p.scripts, p.rounds_mask = HookList([p.scripts, *hooks]), rounds
    return p


def settled_mask(p: StableDiffusionProcessingImg2Img) -> dict[str, Any]:
    """The request's mask_settings as its run will have them: an always-on script may use a mask's greys."""
    return p.mask_settings | ({"round": False} if greys_used(p.alwayson_scripts) else {})


def greys_used(given: Any) -> bool:
    """Whether one of a request's always-on scripts makes a mask's greys count as partial masking. Raises InvalidRequest."""
    return any(script.uses_greys and args.enabled for script, args in always_on(given))


def with_maps(result: Processed, hooks: list[Hooks]) -> Processed:
    """The result, followed by the maps of the control pictures that the request wants back."""
    for hook in hooks:
        if isinstance(hook, controlnet.ControlHooks):
            result.images += hook.maps
            result.infotexts += [""] * len(hook.maps)
            result.paths += [None] * len(hook.maps)
    return result


def check(p: StableDiffusionProcessingImg2Img) -> None:
    """Raise InvalidRequest if run(p) would do so at its start: for unknown scripts and bad arguments."""
    resolve(p)


def resolve(p: StableDiffusionProcessingImg2Img) -> tuple[Script | None, Any, list[Hooks]]:
    """(the request's script, its arguments, the hooks of its always-on scripts). Raises InvalidRequest."""
    hooks = [script.hooks(args) for script, args in always_on(p.alwayson_scripts) if args.enabled]
    if not p.script_name:
        return None, None, hooks
    script = find(p.script_name)
    if isinstance(p.image_mask, list):
        raise InvalidRequest("mask", f'mask: "{script.title}" needs one mask, not a list')
    if isinstance(p.prompt, list) or isinstance(p.negative_prompt, list):
        raise InvalidRequest("prompt", f'prompt: "{script.title}" needs one text, not a list')
    return script, arguments.read(script.record, p.script_args, name="script_args", title=script.title), hooks


def find(title: str) -> Script:
    """The script of that title, ignoring case. Raises UnknownName."""
    if not isinstance(title, str) or title.lower() not in SCRIPTS:
        raise UnknownName("script_name", "script", title, [script.title for script in SCRIPTS.values()])
    return SCRIPTS[title.lower()]


def always_on(given: Any) -> list[tuple[AlwaysOn, Any]]:
    """The always-on scripts that a request gives arguments for, with their records. Raises InvalidRequest."""
    if not isinstance(given, Mapping):
        raise InvalidRequest("alwayson_scripts", 'alwayson_scripts must be like {"Soft Inpainting": {"args": [true]}}, '
                                                 f"got {given!r}")
    found = []
    for title, settings in given.items():
        script = ALWAYS_ON.get(str(title).lower())
        if script is None:
            raise UnknownName("alwayson_scripts", "script", title, [script.title for script in ALWAYS_ON.values()])
        args = settings.get("args", []) if isinstance(settings, Mapping) else settings
        if script.read is not None:
            found.append((script, script.read(args)))
            continue
        record = arguments.read(script.record, completed(args, script), name="alwayson_scripts", title=script.title)
        found.append((script, record))
    return found


def completed(args: Any, script: AlwaysOn) -> Any:
    """The arguments filled up with defaults, and without surplus ones."""
    defaults = [argument.value for argument in script.arguments]
    return [*args, *defaults[len(args):]][:len(defaults)] if isinstance(args, list) else args
