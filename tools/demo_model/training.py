"""What both trainings share: a time budget, averaged weights, checkpoints and log lines."""
from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
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


class Optimizer:
    """Muon (Jordan et al. 2024) for the inner layers' matrices, AdamW for the rest; both shared out among the workers.

    On the autoencoder 50 steps of Muon lower the loss as far as 100 of AdamW.
    Torch's wants matrices, so a convolution's kernel is shown to it as one row for each output channel.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], workers: Workers) -> None:
        matrices, rest = [], []
        for name, parameter in named:
            outer = any(part in name for part in ("embed", "conv_in", "conv_out", "quant"))
            (rest if outer or parameter.ndim < 2 else matrices).append(parameter)
        self.pool, self.matrices = workers.pool, [(matrix, as_rows(matrix)) for matrix in matrices]
        rows = sorted((nn.Parameter(flat) for _, flat in self.matrices), key=torch.Tensor.numel)
        self.rows = {flat.data_ptr(): flat for flat in rows}
        parts = [part for n in range(workers.count) if (part := rows[n::workers.count])]
        self.muons = [torch.optim.Muon(part, lr=1.0, weight_decay=0.01) for part in parts]
        self.adam = torch.optim.AdamW(rest, lr=1.0, betas=(0.9, 0.98), weight_decay=1e-4)

    def step(self, rate: float) -> None:
        """One step at AdamW's learning rate; Muon's is seven times as large."""
        for matrix, flat in self.matrices:
            self.rows[flat.data_ptr()].grad = as_rows(matrix.grad)
        for optimizer, factor in [(self.adam, 1.0), *((muon, 7.0) for muon in self.muons)]:
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        steps = [optimizer.step for optimizer in (*self.muons, self.adam)]
        list(self.pool.map(lambda step: step(), steps) if self.pool else [step() for step in steps])

    def state_dict(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer in (self.adam, *self.muons)]

    def load_state_dict(self, states: list[dict]) -> None:
        """Another number of workers shares the matrices out differently: then Muon's momentum starts anew."""
        self.adam.load_state_dict(states[0])
        if len(states) == 1 + len(self.muons):
            for muon, state in zip(self.muons, states[1:]):
                muon.load_state_dict(state)


def as_rows(weight: Tensor) -> Tensor:
    """A matrix with one row for each output, of the weight's own memory if that lies channels-last."""
    weight = weight.detach()
    return (weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight).flatten(1)


def save(path: Path, **state) -> None:
    """Writes a checkpoint whole or not at all."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def log(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)
