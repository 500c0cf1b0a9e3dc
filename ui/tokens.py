"""Token counts beside the prompts; a chunk of the text encoder has 75."""

from functools import partial
from math import ceil

import gradio as gr

from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.options import Options
from pipeline.prompt_parser import extract_networks, strip_comments
from ui.controls import Controls
from ui.events import QUEUED

CHUNK = 75


def wire_counters(counters: list[gr.HTML], controls: Controls, engine: Engine) -> None:
    """Recount whenever a prompt changes; while counting, only the latest change is kept."""
    read = [controls.prompt, controls.negative_prompt, controls.styles, controls.sd_model_checkpoint, controls.sd_vae, controls.sd_text_encoders, controls.steps]
    gr.on([controls.prompt.change, controls.negative_prompt.change, controls.styles.change], partial(counted, engine), read,
          counters, trigger_mode="always_last", **QUEUED)


def counted(engine: Engine, prompt: str, negative_prompt: str, styles: list[str], checkpoint: str, vae: str, text_encoders: list[str],
            steps: int) -> list[str]:
    """The counters' texts; empty while the model is not loaded."""
    try:
        options = engine.options.override({"sd_model_checkpoint": checkpoint, "sd_vae": vae, "sd_text_encoders": text_encoders})
        texts = [engine.styles.apply_styles(prompt, styles), engine.styles.apply_negative_styles(negative_prompt, styles)]
        counts = engine.count_tokens([bare_prompt(text, options) for text in texts], options, int(steps))
        return ["", ""] if counts is None else list(map(shown, counts))
    except PalimpsestError:  # reported when a picture is requested, not while typing
        return ["", ""]


def bare_prompt(text: str, options: Options) -> str:
    """The prompt without comments and networks."""
    return extract_networks(strip_comments(text) if options.enable_prompt_comments else text)[0]


def shown(count: int) -> str:
    return f"{count}/{CHUNK * max(ceil(count / CHUNK), 1)}"
