"""Stable Diffusion 1.x and 2.x: one text encoder, a UNet, 4-channel latents; also inpainting and edit checkpoints."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import InvalidRequest, ModelError
from pipeline.families import configs
from pipeline.families.base import Facts, ModelInfo, Sees
from pipeline.families.checkpoint import Checkpoint, LoadingCallback, build_modules
from pipeline.families.clip import ClipTextEncoder, ClipTokens
from pipeline.families.compiled import Compilable
from pipeline.families.cond import Cond, Encoding
from pipeline.families.configs import PartKind
from pipeline.families.controls import Controls, computing
from pipeline.families.edit_reuse import EditedUNet, Recording
from pipeline.families.ip_adapter import IPAdapter, attending
from pipeline.families.latents import LatentFormat
from pipeline.families.layer_names import LayerNames
from pipeline.families.layout import arrange
from pipeline.families.loaded import LoadedModel
from pipeline.families.placement import Placement
from pipeline.families.prediction import DiscreteSchedule, Eps, V, zero_terminal_snr
from pipeline.families.reuse import Reuse, Reused
from pipeline.families.step_cache import StepCache
from pipeline.families.token_merging import merging_tokens
from pipeline.families.unet_controls import UNetControl, UNetControls
from pipeline.families.vocabulary import clip_tokenizer
from pipeline.geometry import Size

RGB_FACTORS = ((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350), (-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177))
"""A linear fit from SD1 latents to RGB in [-1, 1], public since 2022."""
CHEAP_RGB_FACTORS = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))
"""A1111's fit for "Approx cheap"."""

PLAIN, EDIT, INPAINTING = 4, 8, 9
"""A UNet's input channels: the latent alone; with the source's latent; with a mask and the masked source's latent."""
SEES: dict[int, Sees] = {PLAIN: "nothing", EDIT: "source", INPAINTING: "masked source"}

EDIT_BYTES = 4 << 30
"""Maximum size of the record of the latest edit."""

TOKENIZER = Path(__file__).parents[2] / "assets" / "tokenizers" / "clip"
PREDICTIONS = {"epsilon": Eps, "v_prediction": V}



def unet(config: dict[str, Any]) -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_config(config)


def autoencoder(config: dict[str, Any]) -> torch.nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_config(config)


def clip(config: dict[str, Any]) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**config))


def projecting_clip(config: dict[str, Any]) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(CLIPTextConfig(**config))


PARTS = {"unet": PartKind(configs.UNET, unet, packs=False), "vae": PartKind(configs.VAE, autoencoder, packs=False),
         "text_encoder": PartKind(configs.TEXT_ENCODER, clip, packs=False),
         "text_encoder_2": PartKind(configs.TEXT_ENCODER, projecting_clip, packs=False)}


@dataclass(frozen=True)
class ClipFacts(Facts):
    """Facts about families with CLIP text encoders."""

    text_encoders: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Part → the settings of its ClipTextEncoder."""
    clip_skip: bool = False
    """Whether a request may choose the text encoder's layer."""
    old_emphasis: bool = False
    """Whether the attention grammar of 2022 is supported."""


LATENT = LatentFormat(scale=0.18215, rgb_factors=RGB_FACTORS, cheap_rgb_factors=CHEAP_RGB_FACTORS, tiny="taesd", approx="model")
SD1 = ClipFacts("sd1", 512, LATENT, PARTS, text_encoders={"text_encoder": {}}, clip_skip=True, old_emphasis=True)
SD2 = ClipFacts("sd2", 768, LATENT, PARTS, text_encoders={"text_encoder": {"padding": 0}})


class StableDiffusion(LoadedModel):
    """A loaded checkpoint of SD1 or SD2."""

    def __init__(self, facts: ClipFacts, checkpoint: Checkpoint, modules: dict[str, torch.nn.Module], info: ModelInfo,
                 placement: Placement, tokens: ClipTokens):
        super().__init__(facts.name, modules, info, placement, latent_format(facts, checkpoint))
        self.text_encoders = prompt_readers(facts, modules, tokens)
        self._clip_skip, self.knows_old_emphasis = facts.clip_skip, facts.old_emphasis
        self._unet = modules["unet"]
        self._recording: Recording | None = None
        self._controls: UNetControls | None = None
        fit_skips(self._unet)
        arrange(self._unet, placement)
        self._ask_unet = asked(self._unet)
        self._network: Callable[..., Tensor] = self._ask_unet
        self.sees = SEES[self._unet.config.in_channels]
        self._prediction = self._find_prediction(checkpoint)

    def prediction(self, size: Size) -> DiscreteSchedule:
        return self._prediction

    def encode_prompts(self, texts: list[str], how: Encoding) -> Cond:
        return self.text_encoders[0].encode(texts, how, clip_skip=how.clip_skip if self._clip_skip else None)

    def image_conditioning(self, pixels: Tensor, latent: Tensor, mask: Tensor | None, *, mask_weight: float) -> Tensor:
        if self.sees == "nothing":
            return super().image_conditioning(pixels, latent, mask, mask_weight=mask_weight)
        self._check_sizes(pixels, latent, mask)
        pixels = pixels.to(latent)
        if self.sees == "source":
            return self.autoencoder.encode(pixels).to(latent)
        mask = pixels.new_ones(1, 1, *pixels.shape[-2:]) if mask is None else mask.to(latent)
        masked = self.encode_image(torch.lerp(pixels, pixels * (1.0 - mask), mask_weight))
        small_mask = F.interpolate(mask, size=masked.shape[-2:])
        return torch.cat([small_mask.expand(len(latent), -1, -1, -1), masked], dim=1)

    def denoise(self, x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> Tensor:
        dtype = self.placement.dtype
        conditions = {"encoder_hidden_states": cond.tokens.to(dtype), **self._extra_conditions(cond)}
        residuals = {} if self._controls is None else self._controls.residuals(x.to(dtype), t, conditions)
        if self.sees != "nothing":
            x = torch.cat([x, image_cond], dim=1)
        return self._network(x.to(dtype), t, **conditions, **residuals).float()

    def layers(self) -> LayerNames:
        return LayerNames(self.modules)

    def merging_tokens(self, ratio: float) -> AbstractContextManager[None]:
        return merging_tokens(self._unet, ratio)

    @contextmanager
    def reusing(self, reuse: Reuse) -> Iterator[Reused]:
        reused = Reused()
        if reuse.edit is not None:
            if self._recording is None or self._recording.key != reuse.edit.key:
                self._recording = Recording(reuse.edit.key, EDIT_BYTES)
            self._network = EditedUNet(self._unet, self._recording, reuse.edit.window, reused)
        elif reuse.interval > 1 or reuse.threshold > 0:
            self._network = StepCache(self._unet, reuse.interval, reuse.threshold, reused)
        try:
            yield reused
        finally:
            self._network = self._ask_unet

    @contextmanager
    def controlled(self, controls: Controls) -> Iterator[None]:
        with computing(controls, UNetControl | IPAdapter, self._unet, self.info.name, self.placement), attending(self._unet, controls):
            self._controls = UNetControls(controls)
            try:
                yield
            finally:
                self._controls = None

    def forget_edit(self) -> None:
        self._recording = None

    def _compilable(self) -> list[Compilable]:
        return [*super()._compilable(), self._ask_unet]

    def _extra_conditions(self, cond: Cond) -> dict[str, Any]:
        """Further inputs of the UNet."""
        return {}

    def _find_prediction(self, checkpoint: Checkpoint) -> DiscreteSchedule:
        alphas = scaled_linear_alphas(*checkpoint.betas)
        name = checkpoint.prediction or ("v_prediction" if self.name == "sd2" and self._looks_like_v() else "epsilon")
        return PREDICTIONS[name](zero_terminal_snr(alphas) if checkpoint.zero_snr else alphas)

    def _looks_like_v(self) -> bool:
        """Whether an SD2 network without a declared prediction type predicts v."""
        if self.sees != "nothing":
            return False
        # A1111: near pure noise, v is about the negated picture, whereas the noise is about the input itself
        x = torch.full((1, PLAIN, 8, 8), 0.5, device=self.placement.device)
        cond = Cond(x.new_full((1, 2, self._unet.config.cross_attention_dim), 0.5))
        with torch.inference_mode():
            output = self.denoise(x, x.new_tensor([999.0]), cond, x)
        return (output - x).mean().item() < -1

    def _check_sizes(self, pixels: Tensor, latent: Tensor, mask: Tensor | None) -> None:
        height, width = pixels.shape[-2:]
        downscale = self.latent_format.downscale
        if (height // downscale, width // downscale) != tuple(latent.shape[-2:]) \
                or (mask is not None and self.sees == "masked source" and tuple(mask.shape[-2:]) != (height, width)):
            raise InvalidRequest("resize_mode", "resize_mode: with an inpainting or edit checkpoint a latent upscale needs a "
                                                f"source of the requested size, got {width}x{height}")


def asked(unet: torch.nn.Module) -> Compilable:
    """A UNet as a function (x, t, **conditions) -> its answer."""
    return Compilable(unet, lambda x, t, **conditions: unet(x, t, return_dict=False, **conditions)[0])


def fit_skips(unet: torch.nn.Module) -> None:
    """Have a UNet's upward blocks resize their inputs as A1111 does."""
    for block in unet.up_blocks:
        block.register_forward_pre_hook(fit_to_skip, with_kwargs=True)


def fit_to_skip(block: torch.nn.Module, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Resize the input of an upward block to the skip connection's size."""
    # A1111: always doubles on the way up and then crops; diffusers resizes to the final size at once, before a convolution
    skip = inputs["res_hidden_states_tuple"][-1]
    if inputs["hidden_states"].shape[-2:] != skip.shape[-2:]:
        inputs["hidden_states"] = F.interpolate(inputs["hidden_states"], size=skip.shape[-2:], mode="nearest")
    return args, inputs | {"upsample_size": None}


def latent_format(facts: ClipFacts, checkpoint: Checkpoint) -> LatentFormat:
    """The family's latent format, with the checkpoint's own facts."""
    usual, extra = facts.latent_format, checkpoint.extra
    return replace(
        usual, scale=checkpoint.latent_scale or usual.scale,
        rgb_factors=tuple(map(tuple, extra.get("latent_rgb_factors", usual.rgb_factors))),
        rgb_bias=tuple(extra.get("latent_rgb_bias", usual.rgb_bias)))


def scaled_linear_alphas(start: float = 0.00085, end: float = 0.012, steps: int = 1000) -> Tensor:
    """alphas_cumprod of betas that are linear in their square root; computed in float64 like the original code."""
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0).float()


# --- recognising and loading ---------------------------------------------------------------------------------------

def is_sd1(checkpoint: Checkpoint) -> bool:
    return not is_sdxl(checkpoint) and not checkpoint.config("unet").get("use_linear_projection")


def is_sd2(checkpoint: Checkpoint) -> bool:
    return not is_sdxl(checkpoint) and bool(checkpoint.config("unet").get("use_linear_projection"))


def is_sdxl(checkpoint: Checkpoint) -> bool:
    return checkpoint.config("unet").get("addition_embed_type") == "text_time"


def what_it_sees(checkpoint: Checkpoint) -> Sees:
    """What the network sees of the source, according to its config."""
    return SEES.get(checkpoint.config("unet").get("in_channels"), "nothing")


def load(facts: ClipFacts, checkpoint: Checkpoint, info: ModelInfo, placement: Placement, progress: LoadingCallback,
         family: type[StableDiffusion] = StableDiffusion) -> StableDiffusion:
    """The checkpoint with its weights. Raises ModelError."""
    tokens = read_tokenizer(checkpoint.path)
    modules = build_modules(checkpoint, facts.parts, placement, progress)
    for part in facts.text_encoders:
        check_vocabulary(checkpoint.path, part, modules[part].config.vocab_size, tokens)
    loaded = family(facts, checkpoint, modules, info, placement, tokens)
    if checkpoint.unknown:
        others = f" and {len(checkpoint.unknown) - 1} more tensors" if len(checkpoint.unknown) > 1 else ""
        loaded.notes.append(f'"{checkpoint.path.name}" holds "{checkpoint.unknown[0]}"{others}, whose effect on pictures is '
                            "unknown; it was left out.")
    return loaded


def check_supported(facts: ClipFacts, checkpoint: Checkpoint) -> None:
    """Raise ModelError for an incomplete checkpoint, or one that computes differently from its family."""
    name = checkpoint.path.name
    missing = [part for part in ("unet", "vae", *facts.text_encoders) if part not in checkpoint.parts]
    if missing:
        raise ModelError(f'"{name}" is not a complete checkpoint: it lacks the {" and the ".join(missing)}'
                         + ("; a VAE can be chosen separately" if missing == ["vae"] else ""))
    channels = checkpoint.config("unet").get("in_channels")
    if channels not in SEES:
        raise ModelError(f'"{name}" has a UNet of {channels} input channels; valid: {", ".join(map(str, SEES))}')
    latent = checkpoint.config("vae").get("latent_channels", PLAIN)
    if latent != facts.latent_format.channels:
        raise ModelError(f'"{name}" cannot be used with a VAE of {latent} latent channels; '
                         f"valid: {facts.latent_format.channels}")
    if checkpoint.vae_downscale not in (None, facts.latent_format.autoencoder_downscale):
        raise ModelError(f'"{name}" cannot be used with a VAE of {checkpoint.vae_downscale} pixels per latent cell; '
                         f"valid: {facts.latent_format.autoencoder_downscale}")
    if checkpoint.prediction not in (None, *PREDICTIONS):
        raise ModelError(f'"{name}" predicts {checkpoint.prediction}; valid: {", ".join(PREDICTIONS)}')


def check_vocabulary(path: Path, part: str, words: int, tokens: ClipTokens) -> None:
    """Raise ModelError if the tokenizer's ids exceed the text encoder's vectors."""
    if tokens.count > words:
        raise ModelError(f'"{path.name}" is inconsistent: its tokenizer has {tokens.count} tokens, '
                         f"but its {part} has vectors for {words}")


def prompt_readers(facts: ClipFacts, modules: Mapping[str, torch.nn.Module], tokens: ClipTokens) -> list[ClipTextEncoder]:
    """The text encoders with their tokenizers; OpenCLIP's towers, recognised by their padding, use OpenCLIP's."""
    return [ClipTextEncoder(modules[part], tokens if settings.get("padding") is None else tokens.as_open_clip(), **settings)
            for part, settings in facts.text_encoders.items()]


def clip_tokens() -> ClipTokens:
    """CLIP's own tokenizer."""
    return ClipTokens(clip_tokenizer(TOKENIZER))


def read_tokenizer(path: Path) -> ClipTokens:
    """The tokenizer in a diffusers folder, or CLIP's own. Raises ModelError."""
    folder = next((folder for folder in (path / "tokenizer", path / "tokenizer_2") if folder.is_dir()), TOKENIZER)
    return ClipTokens(clip_tokenizer(folder))
