"""Runs networks that enlarge pictures; the last one used stays in memory."""

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from pipeline import upscalers
from pipeline.errors import ModelError
from pipeline.memory import collect, free_memory, is_out_of_memory
from pipeline.models import ModelFile, stamp
from pipeline.upscalers.network import Network

logger = logging.getLogger(__name__)

PROCESSOR = torch.device("cpu")
MAPS, CHANNELS = 3, 64
"""Feature maps at the full size of the result that a network needs at once, and their channels; approximate."""


class Running:
    """Runs networks by name. Any thread may use it; they take turns.

    find: a network's file by its name. device: where they run if it is free. free: bytes free on a device; None: unknown.
    """

    def __init__(self, find: Callable[[str], ModelFile], device: torch.device = PROCESSOR, *, free: Callable[[torch.device], int | None] = free_memory):
        self._find, self._device, self._free = find, device, free
        self._loaded: tuple[Path, tuple | None, Network] | None = None
        self._lock = Lock()

    def run(self, name: str, picture: np.ndarray, *, on_card: bool = True) -> np.ndarray:
        """A picture (h, w, 3) uint8 enlarged by the network's factor; on the processor if the device has no room.

        on_card: False if something else computes on the device. Raises ModelError, and InvalidRequest for an unknown name.
        """
        path = self._find(name).path
        with self._lock:
            network = self._network(path)
            if self._device.type != "cpu" and on_card:
                try:
                    return enlarged(network, picture, self._device)
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    logger.warning("%s ran out of memory on the card; using the processor", path.name)
                network.module.to(PROCESSOR)
                collect(self._device)
            height, width, _ = picture.shape
            left = self._free(PROCESSOR)
            if left is not None and height * width * network.scale**2 * MAPS * CHANNELS * 4 > left:
                raise ModelError(f'"{path.name}" has not enough memory for {width}x{height} pixels at once; '
                                 "a smaller ESRGAN_tile or DAT_tile (not 0) needs less")
            return enlarged(network, picture, PROCESSOR)

    def release(self) -> None:
        """Drop the network."""
        with self._lock:
            self._loaded = None

    @torch.inference_mode(False)  # it may be called in the middle of a job
    def _network(self, path: Path) -> Network:
        state = stamp(path)
        if self._loaded is None or self._loaded[:2] != (path, state):
            self._loaded = None
            self._loaded = path, state, upscalers.load(path)
        return self._loaded[2]


def enlarged(network: Network, picture: np.ndarray, device: torch.device) -> np.ndarray:
    """A picture (h, w, 3) uint8 enlarged by a network, on a device."""
    network.module.to(device)
    # A1111: networks trained on RGB are given BGR, and what they make is read as BGR
    pixels = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)[None].to(device, torch.float32) / 255
    # A1111: rounded here, while the autoencoder's pixels are truncated
    larger = (network.enlarge(pixels)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).to(PROCESSOR, torch.uint8)
    return larger.numpy()[..., ::-1].copy()
