"""What both trainings share: a time budget, averaged weights, checkpoints and log lines."""
from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn


class Budget:
    """A training of so many minutes; `spent` seconds survive in the checkpoint."""

    def __init__(self, minutes: float, peak: float, *, warm_up: int, hold: float) -> None:
        self.seconds, self.peak, self.warm_up, self.hold = minutes * 60, peak, warm_up, hold
        self.spent, self.mark = 0.0, time.time()

    def start(self) -> None:
        """Counts from now on, so that loading and preparing cost nothing."""
        self.mark = time.time()

    def tick(self) -> float:
        """Adds the time since the last tick; returns the part of the budget spent, 0..1."""
        now = time.time()
        self.spent, self.mark = self.spent + now - self.mark, now
        return min(1.0, self.spent / self.seconds)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then `peak` until `hold` of the budget is spent, then a cosine to almost nothing."""
        fall = max(0.0, (self.tick() - self.hold) / (1 - self.hold))
        return self.peak * min(1.0, (step + 1) / self.warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fall)))


class Ema:
    """A moving average of a model's weights, young at first: decay (1 + n) / (10 + n) up to `decay`."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.weights = {name: value.detach().clone().float() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def take(self, model: nn.Module) -> None:
        """Forgets the past: the averages become the model's present weights."""
        for name, value in model.state_dict().items():
            self.weights[name].copy_(value)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        floats = [(self.weights[n], v.detach()) for n, v in model.state_dict().items() if v.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)


def half_precision(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where that is faster: on GPUs, and on CPUs that compute in it; elsewhere it is 3x slower."""
    can = torch.cpu.get_capabilities()
    quick = device.type != "cpu" or can.get("amx_bf16") or can.get("avx512_bf16")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bool(quick))


class Workers:
    """Gradients of one batch, computed in parts by threads that share the weights.

    On a CPU, one thread for each part of the batch is about 1.4 times as fast as all threads on each operation.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        if count > 1:  # operations with threads of their own would wait for each other whenever the machine is shared
            torch.set_num_threads(1)
        self.pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) if count > 1 else None

    def backward(self, loss_of: Callable[..., Tensor], parameters: list[nn.Parameter], *batch: Tensor) -> float:
        """Sets the gradients of the mean loss over the batch, and returns that loss."""
        def one(part: tuple[Tensor, ...]) -> tuple[float, tuple[Tensor, ...]]:
            loss = loss_of(*part)
            return loss.item(), torch.autograd.grad(loss, parameters)

        parts = list(zip(*(value.chunk(self.count) for value in batch)))
        done = list(self.pool.map(one, parts) if self.pool else map(one, parts))
        sums = list(done[0][1])
        for _, more in done[1:]:
            torch._foreach_add_(sums, more)
        torch._foreach_div_(sums, len(done))
        for parameter, gradient in zip(parameters, sums):
            parameter.grad = gradient
        return sum(loss for loss, _ in done) / len(done)


def save(path: Path, **state) -> None:
    """Writes a checkpoint whole or not at all."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def log(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)
