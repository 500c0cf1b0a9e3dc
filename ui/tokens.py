"""Token counts beside the prompts; a chunk of the text encoder has 75."""

from functools import partial
from math import ceil

import gradio as gr

from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.loading import ModelStore
from pipeline.options import Options
from pipeline.prompt_parser import extract_networks, split_and, strip_comments
from pipeline.samplers import SAMPLERS
from ui.controls import Controls, facts_of
from ui.events import QUEUED

CHUNK = 75
UNUSED = '<span class="unused">not used at CFG Scale 1</span>'
"""In place of the negative prompt's count."""


def wire_counters(counters: list[gr.HTML], controls: Controls, engine: Engine, models: ModelStore) -> None:
    """Recount whenever a prompt changes; while counting, only the latest change is kept."""
    changing = [controls.prompt, controls.negative_prompt, controls.styles, controls.cfg_scale, controls.sampler_name]
    read = [*changing, controls.sd_model_checkpoint, controls.sd_vae, controls.sd_text_encoders, controls.sd_model_kind, controls.steps]
    gr.on([widget.change for widget in (*changing, controls.sd_model_checkpoint)], partial(counted, engine, models), read,
          counters, trigger_mode="always_last", **QUEUED)


def counted(engine: Engine, models: ModelStore, prompt: str, negative_prompt: str, styles: list[str], cfg_scale: float | None, sampler: str,
            checkpoint: str, vae: str, text_encoders: list[str], kind: str, steps: int) -> list[str]:
    """The counters' texts; no numbers while the model is not loaded."""
    unused = UNUSED if cfg_scale == 1 and not SAMPLERS[sampler].cfgpp and len(split_and(prompt)) == 1 else None
    try:
        options = engine.options.override({"sd_model_checkpoint": checkpoint, "sd_vae": vae, "sd_text_encoders": text_encoders, "sd_model_kind": kind})
        texts = [engine.styles.apply_styles(prompt, styles), engine.styles.apply_negative_styles(negative_prompt, styles)]
        counts = engine.count_tokens([bare_prompt(text, options) for text in texts], options, int(steps)) or []
    except PalimpsestError:  # reported when a picture is requested, not while typing
        counts = []
    facts = facts_of(models, checkpoint, kind)
    said = [shown(count, facts and facts.prompt_tokens) for count in counts] or ["", ""]
    return [said[0], unused or said[1]]


def bare_prompt(text: str, options: Options) -> str:
    """The prompt without comments and networks."""
    return extract_networks(strip_comments(text) if options.enable_prompt_comments else text)[0]


def shown(count: int, most: int | None = None) -> str:
    """most: of tokens, if the model takes no more; else the chunks are counted."""
    return f"{count}/{most or CHUNK * max(ceil(count / CHUNK), 1)}"
