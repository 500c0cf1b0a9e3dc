"""Ways to make a UNet call faster: python -m benchmarks unet

Runs a UNet of SD 1.5's size with random weights and a batch of two (prompt and negative prompt) in each way, alternating
with the plain one in separate processes. Seconds are medians; each way's first call is reported separately. On a busy machine
look at the ratio of CPU times. --profile instead shows where one call's time goes, beside the floor: the time that a large
matrix product takes for as many operations. The network is then arranged as in the program.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contest import ROOT, Answer, Contestant, by_turns, compete, middle
from benchmarks.load import UNETS
from benchmarks.report import GIB, show, show_machine, write_json
from pipeline import allocator
from pipeline.families.compiled import Compiler, Work, described, load, name_of
from pipeline.families.layout import arrange
from pipeline.families.placement import Placement

PLAIN = "plain eager"
DEMO = ROOT / "assets" / "demo-model"
SHOWN = 14
"""Operators in a profile."""


def channels_last(unet: nn.Module) -> nn.Module:
    return unet.to(memory_format=torch.channels_last)


def fused(unet: nn.Module) -> nn.Module:
    unet.fuse_qkv_projections()
    return unet


def compiled_blocks(unet: nn.Module) -> nn.Module:
    unet.compile_repeated_blocks()
    return unet


def frozen(unet: nn.Module) -> nn.Module:
    torch._inductor.config.freezing = True
    return torch.compile(unet)


def keeping_memory(unet: nn.Module) -> nn.Module:
    """As in the engine."""
    allocator.keep_freed(True)
    return unet


def arranged(unet: nn.Module) -> nn.Module:
    """As in the program."""
    dtype = unet.dtype
    arrange(unet, Placement(torch.device("cpu"), dtype, dtype))
    return unet


def ahead(unet: nn.Module) -> Callable[..., Tensor]:
    """As by the option compile_networks, for the shapes of the first call."""
    arranged(unet)
    code = None

    def call(x: Tensor, t: Tensor, text: Tensor, return_dict: bool) -> tuple[Tensor]:
        nonlocal code
        if code is None:
            inputs = described([[x, t], {"encoder_hidden_states": text}])
            work = Work(type(unet).__name__, json.loads(unet.to_json_string()), name_of(unet.dtype), inputs, torch.get_num_threads())
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                compiler = Compiler(Path(folder), niceness=0)
                compiler.find(work)
                compiler.wait()
                code = load(compiler.find(work, wanted=False), unet)
        return code(x, t, encoder_hidden_states=text),

    return call


def openvino(unet: nn.Module) -> Callable[..., Tensor]:
    """Converted for the shapes of the first call."""
    import openvino as ov

    class Plain(nn.Module):
        def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
            return unet(x, t, text, return_dict=False)[0]

    network = None

    def call(x: Tensor, t: Tensor, text: Tensor, return_dict: bool) -> tuple[Tensor]:
        nonlocal network
        if network is None:
            inputs = (x, t, text)
            converted = ov.convert_model(Plain(), example_input=inputs, input=[tuple(each.shape) for each in inputs])
            network = ov.compile_model(converted, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        return torch.from_numpy(network([x.numpy(), t.numpy(), text.numpy()])[0]),

    return call


WAYS: dict[str, Callable[[nn.Module], Callable]] = {
    PLAIN: lambda unet: unet,
    "channels-last": channels_last,
    "fused q/k/v": fused,
    "fused q/k/v, channels-last": lambda unet: channels_last(fused(unet)),
    "arranged as in the program": arranged,
    "freed memory kept": keeping_memory,
    "compiled ahead": ahead,
    "compiled repeated blocks": compiled_blocks,
    "compiled whole": torch.compile,
    "compiled whole, channels-last": lambda unet: torch.compile(channels_last(unet)),
    "compiled whole, frozen": frozen,
    "compiled whole, frozen, fused q/k/v": lambda unet: frozen(fused(unet)),
    "OpenVINO, static shapes": openvino,
}


def prepare(way: str, size: int, precision: str, network: str = "sd1") -> Callable[..., Answer]:
    network, inputs = network_and_inputs(size, precision, network)
    network = WAYS[way](network)

    def run() -> Answer:
        began, busy = time.perf_counter(), time.process_time()
        with torch.no_grad():
            output = network(*inputs, return_dict=False)[0]
        return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - busy,
                "mean": output.float().abs().mean().item()}

    return run


def network_and_inputs(size: int, precision: str, network: str) -> tuple[nn.Module, tuple[Tensor, Tensor, Tensor]]:
    """A UNet of that size with random weights, and what it is called with."""
    from diffusers import UNet2DConditionModel

    dtype = getattr(torch, precision)
    config = UNETS["sd1"] if network == "sd1" else UNet2DConditionModel.load_config(DEMO / "unet")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    unet = unet.to_empty(device="cpu").to(dtype).eval().requires_grad_(False)
    torch.manual_seed(0)
    noise = torch.randn(1 << 22, dtype=dtype) * 0.02
    for weights in unet.parameters():
        weights.view(-1).copy_(noise.repeat(weights.numel() // len(noise) + 1)[:weights.numel()])
    inputs = (torch.randn(2, 4, size // 8, size // 8, dtype=dtype), torch.tensor([500.0, 500.0]),
              torch.randn(2, 77, unet.config.cross_attention_dim, dtype=dtype))
    return unet, inputs


SIDE = 4096
"""Of the matrices whose product gives the floor."""


def profiled(unet: nn.Module, inputs: tuple[Tensor, ...]) -> list[tuple]:
    """Rows of (operator, calls, CPU seconds, percentage of the call), longest first; the last ones are the whole call and the floor."""
    with torch.inference_mode():
        unet(*inputs)
        began = time.process_time()
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            unet(*inputs)
        seconds = time.process_time() - began
        with FlopCounterMode(display=False) as counter:
            unet(*inputs)
        rate = product_rate(unet.dtype)
    # the profiler measures wall-clock time, in microseconds
    parts = sorted(seen.key_averages(), key=lambda part: part.self_cpu_time_total, reverse=True)
    whole = sum(part.self_cpu_time_total for part in parts)
    rows = [(part.key, part.count, seconds * part.self_cpu_time_total / whole, 100 * part.self_cpu_time_total / whole) for part in parts]
    floor = counter.get_total_flops() / rate
    return [*rows[:SHOWN], ("the whole call", 1, seconds, 100.0), ("the floor", 1, floor, 100 * floor / seconds)]


def product_rate(dtype: torch.dtype) -> float:
    """Operations in a CPU second of a large matrix product; the best of three."""
    left, right = torch.randn(2, SIDE, SIDE).to(dtype)
    left @ right
    times = []
    for _ in range(3):
        began = time.process_time()
        left @ right
        times.append(time.process_time() - began)
    return 2 * SIDE**3 / min(times)


def compare(ways: Sequence[str], task: dict, runs: int, pythons: dict[str, str]) -> list[tuple]:
    """A row for each way, alternating with the plain one."""
    contest = [Contestant(way, "unet", task | {"way": way}, python=pythons.get(way, sys.executable)) for way in (PLAIN, *ways)]
    answers = by_turns(contest, [[{}]] * (runs + 1), told=partial(print, flush=True))
    plain, *others = ([answer for answer, in rounds] for rounds in answers)
    for one in contest:
        one.close()
    rows = []
    for one, answers in zip(contest[1:], others):
        before, after = middle(plain[1:]), middle(answers[1:])
        rows.append((one.name, before, after, before / after, middle(plain[1:], "cpu") / middle(answers[1:], "cpu"),
                     answers[0]["seconds"], one.peak / GIB, answers[-1]["mean"] / plain[-1]["mean"] - 1))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", help=f"any of {', '.join(WAYS)}; default: all")
    parser.add_argument("--size", type=int, default=512, help="pixels")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--network", choices=("sd1", "demo"), default="sd1")
    parser.add_argument("--profile", action="store_true", help="one call by operator")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--together", type=int, default=1, help="ways in memory at once, besides the plain one")
    parser.add_argument("--python", nargs=2, metavar=("WAY", "INTERPRETER"), action="append", default=[],
                        help="another interpreter for a way, such as one with OpenVINO")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        return compete(lambda: prepare(**json.loads(flags.child)))
    show_machine()
    task = {"size": flags.size, "precision": flags.precision, "network": flags.network}
    if flags.profile:
        unet, inputs = network_and_inputs(**task)
        rows = profiled(arranged(unet), inputs)
        head = "operator", "calls", "CPU seconds", "% of the call"
        show(head, rows, f"One UNet call, {flags.size}x{flags.size}, batch of two, {flags.precision}")
        return write_json(flags.json, {"rows": [dict(zip(head, row)) for row in rows]})
    ways, rows = flags.ways or list(WAYS)[1:], []
    for start in range(0, len(ways), flags.together):
        rows += compare(ways[start:start + flags.together], task, flags.runs, dict(flags.python))
    head = "way", "plain, s", "this way, s", "ratio", "ratio of CPU time", "first call, s", "peak GiB", "change of the mean"
    show(head, rows, f"One UNet call, {flags.size}x{flags.size}, batch of two, {flags.precision}, medians of {flags.runs}")
    write_json(flags.json, {"rows": [dict(zip(head, row)) for row in rows]})


if __name__ == "__main__":
    main()
