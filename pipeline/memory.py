"""Free memory, out-of-memory errors, and running a model with less memory."""

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOMEM
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline import allocator
from pipeline.errors import ModelError
from pipeline.families.base import Family
from pipeline.families.cond import Cond
from pipeline.families.placement import Placement, is_text_encoder, plan_of
from pipeline.families.reuse import Reuse, Reused

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc",
                 "alloc_failed", "allocation_failed", "allocfailed", "status_memory_error")
"""Parts of out-of-memory messages, in lower case, that torch raises without an exception class of their own: on CPUs, on
Apple's GPUs, and from GPU libraries (CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED,
rocblas_status_memory_error, miopenStatusAllocFailed and others)."""


@dataclass(frozen=True)
class ControlGroups:
    """Names of the memory files in a control group's folder, for one version of Linux's control groups."""

    limit: str
    used: str
    cached: str
    """The line of memory.stat with the bytes of the page cache that Linux reclaims when memory is short."""

    def left(self, group: Path) -> int | None:
        """Bytes that a group may still take; None: no limit."""
        limit, used = read_number(group / self.limit), read_number(group / self.used)
        return None if limit is None or used is None else max(limit - used + (read_number(group / "memory.stat", self.cached) or 0), 0)


VERSION_1 = ControlGroups("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ControlGroups("memory.max", "memory.current", "inactive_file")

TILE = 512
"""Side of the autoencoder's tiles, in pixels, when memory is short."""
LIBRARIES = 1 << 29
"""Bytes that the device's libraries take."""
UNET_MAPS = 13
"""A UNet's peak memory, in feature maps of its first layer's width, with memory-efficient attention; approximate."""
KEPT = 2
"""Keeping freed memory takes up to this many times the working memory, because of fragmentation."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, means that memory ran out."""
    while error is not None:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or getattr(error, "errno", None) == ENOMEM:
            return True
        if isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY):
            return True
        error = error.__cause__
    return False


def free_memory(device: torch.device) -> int | None:
    """Free bytes on a device; None: unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return min(filter(None, (system_memory(), container_memory())), default=None)


def system_memory() -> int | None:
    """Bytes that Linux can give without swapping."""
    return read_number(Path("/proc/meminfo"), "MemAvailable:", unit=1024)


def container_memory(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes left to this container or control group; None: no limit.

    root: where Linux mounts the control groups; own: the file that names this process's groups. The tightest limit of both
    versions, from this process's group up to the outermost, counts.
    """
    lefts = [version.left(group) for version in (VERSION_2, VERSION_1) for group in groups(root, own, version)]
    return min((left for left in lefts if left is not None), default=None)


def groups(root: Path, own: Path, version: ControlGroups) -> Iterator[Path]:
    """The folders of this process's group and its parents.

    A container may see its own group at the root, or be told a path that it cannot see.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]  # number:controllers:path
    except OSError:
        lines = []
    paths = [path.strip("/") for _, controllers, path in (line for line in lines if len(line) == 3)
             if ("memory" in controllers.split(",") if version is VERSION_1 else not controllers)]
    for top in (root / "memory", root) if version is VERSION_1 else (root, root / "unified"):
        inner = [folder for path in paths for folder in (top / path, *(top / outer for outer in Path(path).parents))]
        yield from (folder for folder in dict.fromkeys([top, *inner]) if (folder / version.limit).exists())


def read_number(file: Path, name: str = "", *, unit: int = 1) -> int | None:
    """The number after `name` in a system file, times `unit`; None if it is not there."""
    try:
        words = file.read_text().split()
        return int(words[words.index(name) + 1 if name else 0]) * unit
    except (OSError, ValueError, IndexError):
        return None


def collect(device: torch.device) -> None:
    """Free unreferenced memory and return it to the device."""
    gc.collect()
    allocator.give_back()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class Bytes(NamedTuple):
    """The memory of a network's weights."""

    whole: int
    layer: int
    """Of the largest of its layers."""


@dataclass(frozen=True)
class MemoryPlan:
    """Where a model's weights will be, computed from its files' headers."""

    offload: str
    """One of placement.OFFLOADS."""
    place: str
    """The device's name."""
    networks: Mapping[str, int]
    """Bytes of each network's weights, by its name in a diffusers folder."""
    peak: int
    """Bytes that the device needs at most, with a picture of native size."""
    free: int | None
    """Bytes free on the device, if the model were not loaded; None: unknown."""

    @property
    def on_device(self) -> dict[str, int]:
        """The networks whose weights stay on the device."""
        return {name: size for name, size in self.networks.items() if plan_of(name, self.offload) == "none"}

    @property
    def waiting(self) -> dict[str, int]:
        """The networks whose weights wait in main memory and are on the device only while they compute."""
        return {name: size for name, size in self.networks.items() if name not in self.on_device}

    @property
    def line(self) -> str:
        """A few words for the page."""
        here, there = (sum(sizes.values()) / 1e9 for sizes in (self.on_device, self.waiting))
        if self.offload == "none":
            return f"{here:.1f} GB on {self.place}" if self.networks else ""
        if self.offload == "encoders":
            return f"{here:.1f} GB on {self.place}, text encoders ({there:.1f} GB) in main memory"
        if self.offload == "model":
            return f"{there:.1f} GB in main memory, one network at a time on {self.place}"
        return f"{there:.1f} GB in main memory, one layer at a time on {self.place}"


def plan_memory(model: str, networks: Mapping[str, Bytes], place: Placement, *, working: int, least: int, free: int | None,
                main: int | None) -> MemoryPlan:
    """The first of OFFLOADS with which a model fits, on a CPU always the first.

    networks: by name in a diffusers folder; working: bytes for a picture, least: with the autoencoder in tiles; free and main:
    free bytes of device and main memory, None: unknown. Raises ModelError, with numbers, if neither fits.
    """
    sizes = {name: size.whole for name, size in networks.items()}
    encoders = {name: size for name, size in networks.items() if is_text_encoder(name)}
    needs = {
        "none": sum(sizes.values()) + working,
        "encoders": sum(size for name, size in sizes.items() if name not in encoders)
        + max((size.layer for size in encoders.values()), default=0) + working,
        "model": max(sizes.values(), default=0) + working,
        "sequential": max((size.layer for size in networks.values()), default=0) + least,
    }
    on_card = place.device.type != "cpu"
    fits = {offload: need for offload, need in needs.items() if free is None or need <= free} if on_card else {"none": needs["none"]}
    if not encoders:
        fits.pop("encoders", None)
    precision = str(place.dtype).removeprefix("torch.")
    if not fits:
        raise ModelError(f'model "{model}" needs {needs["sequential"] / 1e9:.1f} GB of the memory of {place.device} in {precision} even with '
                         f"one layer there at a time, and {free / 1e9:.1f} GB are free")
    plan = MemoryPlan(next(iter(fits)), str(place.device), sizes, next(iter(fits.values())), free)
    in_main = plan.waiting if on_card else plan.on_device
    if main is not None and sum(in_main.values()) > main:  # Linux would kill the program for trying
        raise ModelError(f'model "{model}" needs {sum(in_main.values()) / 1e9:.1f} GB of main memory in {precision}, and {main / 1e9:.1f} GB are free')
    return plan


def working_memory(pixels: int, dtype: torch.dtype) -> int:
    """Bytes that a picture of `pixels` pixels needs besides the weights. dtype: the autoencoder's.

    Decoding needs the most; the rest is for the device's libraries.
    """
    return decoding_memory(pixels, dtype) + LIBRARIES


def decoding_memory(pixels: int, dtype: torch.dtype, channels: int = 256) -> int:
    """Bytes in use while a picture is decoded: about 4 feature maps of `channels` channels at full size."""
    return pixels * 4 * channels * dtype.itemsize


def check_memory(family: Family, pixels: int, batch: int, free: Callable[[torch.device], int | None] = free_memory, *,
                 sparing: bool = False) -> None:
    """Raise MemoryError if the CPU's memory is too small for a batch of pictures of `pixels` pixels each.

    Checked up front because Linux overcommits memory and then kills the program. sparing: one picture at a time, and in
    tiles for the autoencoder.
    """
    place = family.placement
    if place.device.type != "cpu" or (left := free(place.device)) is None:
        return
    channels, width = (getattr(getattr(family.modules.get(part), "config", None), "block_out_channels", None)
                       for part in ("vae", "unet"))
    if not channels or not width:  # an unknown kind of network
        return
    decoded = min(pixels, TILE**2) if sparing else pixels * batch
    rows = 1 if sparing else batch
    if max(decoding_memory(decoded, place.vae_dtype, channels[:2][-1]),
           rows * pixels // family.latent_format.downscale**2 * UNET_MAPS * width[0] * place.dtype.itemsize) > left:
        raise MemoryError


def keep_freed_where_plenty(place: Placement, pixels: int, free: Callable[[torch.device], int | None] = free_memory) -> None:
    """From now on keep freed memory if the CPU has plenty for pictures of `pixels` pixels."""
    def is_plenty() -> bool:
        left = free(place.device)
        return left is not None and left >= KEPT * working_memory(pixels, place.vae_dtype)

    keep = False
    if place.device.type == "cpu" and not (keep := is_plenty()):
        allocator.give_back()  # kept memory does not count as free
        keep = is_plenty()
    allocator.keep_freed(keep)


class Frugal:
    """A family that needs less memory and more time. Pictures differ only by rounding and at the seams of tiles.

    It takes one row of a batch at a time; on a GPU, each layer is loaded only while it computes.
    """

    def __init__(self, family: Family):
        self.family = family
        self.changes = f"one picture at a time, with the autoencoder in tiles of {TILE} pixels"
        if family.placement.device.type != "cpu":
            self.changes += ", with each layer on the card only while it computes"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.family, name)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return torch.cat([self.family.encode_image(image[None]) for image in pixels])

    def denoise(self, x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> Tensor:
        rows = [slice(row, row + 1) for row in range(len(x))]
        return torch.cat([self.family.denoise(x[row], t[row], cond[row], image_cond[row]) for row in rows])

    def decode(self, latent: Tensor) -> Tensor:
        return torch.cat([self.family.decode(image[None]) for image in latent])

    @contextmanager
    def reusing(self, reuse: Reuse) -> Iterator[Reused]:
        yield Reused()  # reused values would take memory


@contextmanager
def frugal(family: Family) -> Iterator[Frugal]:
    """The family with less memory. On exit its weights go back to where they were, as far as there is room."""
    family.autoencoder.cut_into_tiles(TILE, above=TILE**2)
    family.forget_edit()
    allocator.keep_freed(False)
    if family.placement.device.type != "cpu":
        family.offload.follow("sequential")
    collect(family.placement.device)
    try:
        yield Frugal(family)
    finally:
        family.autoencoder.cut_into_tiles()
        go_back(family)


def go_back(family: Family) -> None:
    """Move a family's weights where its placement says, or offload them if there is no room."""
    try:
        family.offload.follow(family.placement.offload)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        family.offload.follow("sequential")


def memory_report() -> dict[str, dict[str, Any]]:
    """Bytes of main memory ("ram") and GPU memory ("cuda"), under A1111's names; each may be an "error" instead."""
    return {"ram": ram(), "cuda": cuda()}


def ram() -> dict[str, Any]:
    """Main memory in bytes, under A1111's names."""
    free = free_memory(torch.device("cpu"))
    try:
        used = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return {"error": "unavailable"}
    return {"free": free, "used": used, "total": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}


def cuda() -> dict[str, Any]:
    """GPU memory in bytes, under A1111's names."""
    if not torch.cuda.is_available():
        return {"error": "unavailable"}
    free, total = torch.cuda.mem_get_info()
    stats = torch.cuda.memory_stats()
    pairs = {"active": "active_bytes.all", "allocated": "allocated_bytes.all", "reserved": "reserved_bytes.all",
             "inactive": "inactive_split_bytes.all"}
    return {"system": {"free": free, "used": total - free, "total": total},
            **{name: {"current": stats.get(f"{key}.current", 0), "peak": stats.get(f"{key}.peak", 0)} for name, key in pairs.items()},
            "events": {"retries": stats.get("num_alloc_retries", 0), "oom": stats.get("num_ooms", 0)}}
