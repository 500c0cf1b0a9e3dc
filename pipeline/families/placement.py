"""The device and precision of a model: chosen once, then passed in."""

from dataclasses import dataclass

import torch

from pipeline.errors import InvalidRequest, UnknownName

OFFLOADS = ("none", "encoders", "model", "sequential")
"""Which weights are on the device: all; all but the text encoders', of which the computing layer's are; the computing
network's; the computing layer's. The others are in main memory."""


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
        """Where the weights of networks are while idle, except text encoders'."""
        return self.home_of("")

    def home_of(self, part: str) -> torch.device:
        """Where a network's weights are while idle, by its name in a diffusers folder."""
        return self.device if plan_of(part, self.offload) == "none" else torch.device("cpu")

    def dtype_of(self, part: str) -> torch.dtype:
        """The precision of a network by its name in a diffusers folder."""
        return self.vae_dtype if part == "vae" else self.dtype


def plan_of(part: str, offload: str) -> str:
    """What one of OFFLOADS means for one network: "none", "model" or "sequential"."""
    return ("sequential" if is_text_encoder(part) else "none") if offload == "encoders" else offload


def is_text_encoder(part: str) -> bool:
    """Whether a network is a text encoder, by its name in a diffusers folder."""
    return part.startswith("text_encoder")


MOST_WORKERS = 64
"""On one device."""
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


def list_devices(listed: str) -> dict[str, str]:
    """Worker → its device, for "all" (every CUDA card) or a list such as "cuda:0,cuda:1" or "cpu*2". Raises InvalidRequest.

    The devices are only looked up, as using a card here would take some of its memory.
    """
    cards = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    found: dict[str, str] = {}
    for part in cards or ["mps" if is_there("mps") else "cpu"] if listed.strip() == "all" else listed.split(","):
        name, _, times = part.strip().partition("*")
        count = 1 if not times else int(times) if times.isdecimal() else 0
        if not is_there(name) or not 1 <= count <= MOST_WORKERS:
            raise InvalidRequest("devices", "devices must be all, or a list of devices of this machine such as cuda:0,cuda:1 or cpu*2 "
                                            f"(1 to {MOST_WORKERS} of each), got {listed!r}; there are {', '.join(['cpu', *cards])}")
        for number in range(1, count + 1):
            worker = name if count == 1 else f"{name} #{number}"
            if worker in found:
                raise InvalidRequest("devices", f"devices: {name} is listed twice; write {name}*2 for two workers on it")
            found[worker] = name
    return found


def is_there(name: str) -> bool:
    """Whether this machine has a device of that name."""
    try:
        device = torch.device(name)
    except RuntimeError:
        return False
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


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
