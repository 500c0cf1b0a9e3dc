"""Shared by the trainings: a time budget, averaged weights, checkpoints and log lines."""
from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class Budget:
    """A training budget in minutes by `clock`; `spent` seconds survive in the checkpoint."""

    def __init__(self, minutes: float, peak: float, *, warm_up: int, hold: float, clock: Callable[[], float]) -> None:
        self.seconds, self.peak, self.warm_up, self.hold, self.clock = minutes * 60, peak, warm_up, hold, clock
        self.spent, self.mark = 0.0, clock()

    def start(self) -> None:
        """Start counting now, so that loading and preparation are free."""
        self.mark = self.clock()

    def tick(self) -> float:
        """Add the time since the last tick; returns the fraction of the budget spent, 0..1."""
        now = self.clock()
        self.spent, self.mark = self.spent + now - self.mark, now
        return min(1.0, self.spent / self.seconds)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then `peak` until `hold` of the budget is spent, then a cosine decay to almost nothing."""
        fall = max(0.0, (self.tick() - self.hold) / (1 - self.hold))
        return self.peak * min(1.0, (step + 1) / self.warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fall)))


def clock_of(device: torch.device, workers: Workers) -> Callable[[], float]:
    """Seconds: CPU time per core on a CPU, wall-clock time otherwise.

    So a training that shares its CPU with other work, or is paused, still gets all its steps.
    """
    if device.type != "cpu":
        return time.time
    cores = max(workers.count, torch.get_num_threads())
    return lambda: time.process_time() / cores


class Ema:
    """A moving average of a model's weights, faster at first: decay (1 + n) / (10 + n) up to `decay`."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.weights = {name: value.detach().clone().float() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def take(self, model: nn.Module) -> None:
        """Reset the averages to the model's current weights."""
        for name, value in model.state_dict().items():
            self.weights[name].copy_(value)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        floats = [(self.weights[n], v.detach()) for n, v in model.state_dict().items() if v.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)


def half_precision(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where that is faster: on GPUs, and on CPUs with native support; elsewhere it is 3x slower."""
    can = torch.cpu.get_capabilities()
    quick = device.type != "cpu" or can.get("amx_bf16") or can.get("avx512_bf16")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bool(quick))


class Workers:
    """Gradients of one batch, computed in parts by threads that share the weights.

    On a CPU, one thread per part is about 1.4 times as fast as all threads on each operation.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        if count > 1:  # multi-threaded operations would wait for each other on a shared machine
            torch.set_num_threads(1)
        self.pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) if count > 1 else None

    def backward(self, loss_of: Callable[..., Tensor], parameters: list[nn.Parameter], *batch: Tensor) -> float:
        """Set the gradients of the mean loss over the batch, and return that loss."""
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
    """Muon (Jordan et al. 2024) for the inner layers' matrices, AdamW for the rest; distributed over the workers.

    On the autoencoder 50 steps of Muon lower the loss as far as 100 of AdamW.
    Torch's Muon takes matrices, so a convolution's kernel is viewed as one row per output channel.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], workers: Workers, *, muon: bool = True) -> None:
        """`muon` false: AdamW for everything, which suits low-rank matrices and single vectors."""
        matrices, rest = [], []
        for name, parameter in named:
            outer = not muon or any(part in name for part in ("embed", "conv_in", "conv_out", "quant"))
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
        """With another number of workers the matrices are distributed differently, and Muon's momentum starts again."""
        self.adam.load_state_dict(states[0])
        if len(states) == 1 + len(self.muons):
            for muon, state in zip(self.muons, states[1:]):
                muon.load_state_dict(state)


class Course:
    """A small training from start to end, batch by batch until the minutes are used up.

    Model, optimizer, averaged weights and budget are saved in one file, from which it resumes.
    """

    def __init__(self, path: Path, model: nn.Module, args: argparse.Namespace, device: torch.device, *,
                 muon: bool = True) -> None:
        """`args`: minutes, rate, workers, seed, and save_every in minutes."""
        self.path, self.model, self.args = path, model, args
        self.workers, self.ema, self.step = Workers(args.workers), Ema(model, 0.998), 0
        self.optimizer = Optimizer(model.named_parameters(), self.workers, muon=muon)
        self.budget = Budget(args.minutes, args.rate, warm_up=50, hold=0.3, clock=clock_of(device, self.workers))
        if path.exists():
            state = torch.load(path, map_location=device)
            model.load_state_dict(state["model"]), self.optimizer.load_state_dict(state["optimizer"])
            self.ema.weights, self.ema.steps = state["ema"], state["step"]
            self.step, self.budget.spent = state["step"], state["spent"]

    def run(self, batch: Callable[[np.random.Generator], tuple[Tensor, ...]], loss_of: Callable[..., Tensor],
            report: Callable[[], str]) -> None:
        """`batch` gives what `loss_of` takes, split if there are several workers; `report` is logged at each save."""
        parameters, random = list(self.model.parameters()), np.random.default_rng(self.args.seed + self.step)
        torch.manual_seed(self.args.seed + self.step)
        self.budget.start()
        total, count, kept = 0.0, 0, self.budget.spent
        while self.budget.tick() < 1:
            total += self.workers.backward(loss_of, parameters, *batch(random))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            self.optimizer.step(self.budget.learning_rate(self.step))
            self.ema.update(self.model)
            self.step, count = self.step + 1, count + 1
            if self.step % 50 == 0:
                log(f"step {self.step} loss {total / count:.4f} {self.budget.spent / 60:.1f} min")
                total, count = 0.0, 0
            if self.budget.spent - kept > 60 * self.args.save_every:
                kept = self.budget.spent
                self.keep(report)
        self.keep(report)

    def keep(self, report: Callable[[], str]) -> None:
        save(self.path, model=self.model.state_dict(), optimizer=self.optimizer.state_dict(), ema=self.ema.weights,
             step=self.step, spent=self.budget.spent)
        log(f"{self.step} steps, {self.budget.spent / 60:.1f} min: {report()}")


def course_options(parser: argparse.ArgumentParser, *, minutes: float, rate: float, batch: int, seed: int) -> None:
    """The options of a Course, with these defaults."""
    parser.add_argument("--work", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--save-every", type=float, default=3, help="minutes between checkpoints")
    parser.add_argument("--workers", type=int, default=1, help="threads that share each batch; on a CPU its cores")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--device", default="auto")


def as_rows(weight: Tensor) -> Tensor:
    """A matrix with one row per output, sharing the weight's memory if that is channels-last."""
    weight = weight.detach()
    return (weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight).flatten(1)


def save(path: Path, **state) -> None:
    """Write a checkpoint atomically."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def log(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)
