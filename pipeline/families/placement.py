"""The device and precision of a model: chosen once, then passed in."""

from dataclasses import dataclass

import torch

from pipeline.errors import InvalidRequest, UnknownName

OFFLOADS = ("none", "model", "sequential")
"""Which weights are on the device: all; the computing network's; the computing layer's. The others are in main memory."""


@dataclass(frozen=True)
class Placement:
    """The device and precision of a model."""

    device: torch.device
    dtype: torch.dtype
    """Precision of text encoder and UNet. Latents, noise and solver arithmetic are always float32."""
    vae_dtype: torch.dtype
    offload: str = "none"
    """One of OFFLOADS."""

    @property
    def home(self) -> torch.device:
        """Where weights are while idle."""
        return self.device if self.offload == "none" else torch.device("cpu")

    def dtype_of(self, part: str) -> torch.dtype:
        """The precision of a network by its name in a diffusers folder."""
        return self.vae_dtype if part == "vae" else self.dtype


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose(device: str = "auto", precision: str = "auto") -> Placement:
    """The placement for `device` ("auto", "cpu", "cuda", "cuda:1", "mps") and `precision` ("auto" or a PRECISIONS name).

    Automatic precision is the fastest adequate one: bfloat16 on CUDA cards and CPUs with native support, float16 on older
    cards and on Apple's, else float32. Raises InvalidRequest for an unavailable device.
    """
    if precision not in ("auto", *PRECISIONS):
        raise UnknownName("precision", "precision", precision, ("auto", *PRECISIONS))
    where = find_device(device)
    dtype = fastest_dtype(where) if precision == "auto" else PRECISIONS[precision]
    return Placement(where, dtype, vae_dtype(where, dtype))


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is the fastest available. Raises InvalidRequest."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InvalidRequest("device", f'device "{name}" cannot be used on this machine; '
                                       "valid: auto, cpu, cuda, cuda:N, mps if present") from error
    return device


def fastest_dtype(device: torch.device) -> torch.dtype:
    """The fastest adequate precision of a device."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
    computes_bf16 = torch.cpu.get_capabilities()
    fast = computes_bf16.get("amx_bf16") or computes_bf16.get("avx512_bf16")
    return torch.bfloat16 if fast else torch.float32


def vae_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The autoencoder's precision: SD autoencoders overflow float16, so they get float32 there."""
    return torch.float32 if dtype == torch.float16 else dtype
