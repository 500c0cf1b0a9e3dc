"""Copies of tensors in main memory, made while their device computes on."""

import torch
from torch import Tensor

WAITING = ("cpu", "mps")
"""Devices whose copies are there at once: main memory itself, and Apple's, which copies only after all its work."""


class Arriving:
    """A copy of a tensor in main memory, on its way.

    The tensor may be changed or dropped at once, as a device copies in the order of its work.
    """

    def __init__(self, tensor: Tensor):
        tensor, self._event = tensor.detach(), None
        if tensor.device.type in WAITING:
            self._copy = tensor.to("cpu", copy=True)
            return
        device = torch.get_device_module(tensor.device)
        self._copy = tensor.to("cpu", non_blocking=True)  # pinned memory
        self._event = device.Event()
        self._event.record(device.current_stream(tensor.device))

    @property
    def arrived(self) -> bool:
        return self._event is None or self._event.query()

    def get(self) -> Tensor:
        """The copy, once it is there."""
        if self._event is not None:
            self._event.synchronize()
        return self._copy
