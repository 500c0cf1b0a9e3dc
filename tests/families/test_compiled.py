"""Compiled networks: they agree with plain ones, see every change of their weights, and are used only where they are faster."""

import logging
from dataclasses import asdict

import pytest
import torch
from diffusers import UNet2DConditionModel

from pipeline import families
from pipeline.families.base import Calls
from pipeline.families.compiled import APART, ROUNDS, RUNS, Compilable, Compiler, Trial, Verdict, Work, compiling, find_compiler
from pipeline.families.compiling import compile_network
from pipeline.families.cond import Cond
from pipeline.families.layout import arrange
from pipeline.families.placement import Placement
from pipeline.families.sd import fit_skips
from pipeline.families.token_merging import merging_tokens
from pipeline.families.wrapping import wrapping_around

HALF = torch.bfloat16
CPU = Placement(torch.device("cpu"), HALF, HALF)
NOTHING = Work("NoSuchNetwork", {}, "bfloat16", [], 1)


class Here(Compiler):
    """Compiles in this process, at once."""

    def _start(self, work, file):
        self.folder.mkdir(exist_ok=True)
        compile_network(**asdict(work), file=file)


class Asked(Compiler):
    """Only remembers what it is asked for."""

    def __init__(self, folder):
        super().__init__(folder)
        self.works = []

    def find(self, work, *, wanted=True):
        self.works += [work] if wanted else []


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        in_channels=4, out_channels=4, block_out_channels=(16,), layers_per_block=1, norm_num_groups=8, cross_attention_dim=16,
        attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D",), up_block_types=("UpBlock2D",), mid_block_type=None)
    network.to(HALF).eval().requires_grad_(False)
    fit_skips(network)
    arrange(network, CPU)
    return network


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    return Here(tmp_path_factory.mktemp("code"))


def calls_of(unet):
    return Compilable(unet, lambda x, t, **conditions: unet(x, t, return_dict=False, **conditions)[0])


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(HALF)


def ask(network, seed=1, side=8):
    return network(noise(2, 4, side, side, seed=seed), torch.tensor([500.0, 20.0]), encoder_hidden_states=noise(2, 7, 16, seed=seed + 1))


def sample(network, compiler, **which):
    """(the output, whether it was compiled) of one sampling of one call."""
    with torch.inference_mode(), compiling([network], compiler) as calls:
        output = ask(network, **which)
    return output, calls.compiled > 0


def apart(one, other):
    return ((one.float() - other.float()).square().mean() / other.float().square().mean()).sqrt().item()


def test_a_compiled_network_agrees_with_the_plain_one_and_computes_with_its_present_weights(unet, compiler):
    plain, network = calls_of(unet), calls_of(unet)
    assert [sample(network, compiler)[1] for _ in range(RUNS - 1)] == [False] * (RUNS - 1) and not list(compiler.folder.iterdir())
    sample(network, compiler)
    if find_compiler() is None:
        assert not list(compiler.folder.iterdir())
        return
    file, = compiler.folder.glob("*.pt2")
    assert file.stat().st_size < 8 << 20
    while (verdict := verdict_on(network)) is None:  # calls take turns until it is known
        sample(network, compiler)
    assert verdict.apart < APART / 2 and verdict.plain > 0 and verdict.compiled > 0

    # after a restart, whatever the busy machine's verdict was
    work = work_of(network)
    (compiler.folder / f"{work.key}.json").unlink()
    if not file.exists():
        Here(compiler.folder).find(work)
    compiler.decide(work, Verdict(True, verdict.apart))
    network, again = calls_of(unet), Here(compiler.folder, compiler=lambda: None)
    for seed in range(3):
        output, compiled = sample(network, again, seed=seed)
        assert compiled and 0 < apart(output, ask(plain, seed=seed)) < APART / 2
    before = ask(plain)
    weight = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k.weight
    original = weight.clone()
    for change in (weight.mul_, unet.conv_in.weight.mul_):  # as networks are merged: in place, also into a part of fused weights
        change(3.0)
        output, compiled = sample(network, again)
        assert compiled and apart(output, ask(plain)) < APART / 2 < apart(before, ask(plain))
    weight.copy_(original)
    unet.conv_in.weight.div_(3.0)

    # what changes the network's layers leaves it plain, and so do other shapes
    assert not sample(network, again, side=16)[1]
    for changed in (merging_tokens(unet, 0.5), wrapping_around([unet])):
        with changed:
            assert not sample(network, again)[1]
    layer = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    layer.bias = torch.nn.Parameter(torch.ones(16, dtype=HALF), requires_grad=False)
    output, compiled = sample(network, again)
    assert not compiled and torch.equal(output, ask(plain))
    layer.bias = None
    assert sample(network, again)[1]
    assert not sample(network, None)[1], "the option is off"


def work_of(network):
    """What a network's only trial is about."""
    trial, = network._trials.values()
    return trial._decided.args[0]


def verdict_on(network):
    return next((trial._verdict for trial in network._trials.values()), None)


def test_float32_is_never_compiled(tmp_path):
    asked = Asked(tmp_path)
    network = Compilable(torch.nn.Linear(2, 2), lambda x: x)
    for _ in range(RUNS + 1):
        with compiling([network], asked):
            network(torch.ones(1))
    assert asked.works == []


def test_a_familys_networks_are_asked_for_once_they_have_run_a_few_times(checkpoint, tmp_path):
    folder, _ = checkpoint("sdxl")
    model = families.load(folder, CPU)
    model.compiler = asked = Asked(tmp_path)
    vector = {"text_embeds": torch.ones(1, 32), "time_ids": torch.ones(1, 6)}
    for run in range(RUNS):
        assert asked.works == []
        with model.compiled(True) as calls, torch.inference_mode():
            for _ in range(2):
                model.denoise(torch.ones(1, 4, 8, 8), torch.tensor([500.0]), Cond(torch.ones(1, 77, 64), vector), torch.ones(1, 0, 8, 8))
            model.decode(torch.ones(1, 4, 8, 8))
    assert calls == Calls() and [work.network for work in asked.works] == ["UNet2DConditionModel", "AutoencoderKL"]
    unet, decoder = (work.inputs for work in asked.works)
    assert unet[1]["added_cond_kwargs"]["time_ids"] == [[1, 6], "float32"] and decoder == [[[[1, 4, 8, 8], "bfloat16"]], {}]
    with model.compiled(False):
        model.decode(torch.ones(1, 4, 8, 8))
    assert len(asked.works) == 2


# the trial

class Way:
    """A way to compute 2x that takes as long as it says."""

    def __init__(self, seconds, clock, factor=2.0):
        self.seconds, self.clock, self.factor = seconds, clock, factor

    def __call__(self, x):
        self.clock[0] += self.seconds
        if self.factor is None:
            raise RuntimeError("not here")
        return x * self.factor


def trial(*, plain=1.0, compiled, factor=2.0, verdict=None):
    clock, verdicts = [0.0], []
    return Trial(Way(plain, clock), Way(compiled, clock, factor), verdict, verdicts.append, lambda: clock[0]), verdicts


@pytest.mark.parametrize("seconds, kept", [(0.5, True), (0.94, True), (0.97, False), (2.0, False)])
def test_only_what_is_faster_is_kept(seconds, kept):
    calls, verdicts = trial(compiled=seconds)
    turns = [calls(torch.ones(2))[1] for _ in range(1 + 2 * ROUNDS)]
    assert turns == [False, *[True, False] * ROUNDS] and verdicts == [Verdict(kept, 0.0, 1.0, seconds)]
    assert [calls(torch.ones(2))[1] for _ in range(3)] == [kept] * 3 and len(verdicts) == 1


@pytest.mark.parametrize("factor", [2.2, float("nan"), None])
def test_what_computes_something_else_is_never_used(factor):
    calls, verdicts = trial(compiled=0.1, factor=factor)
    for _ in range(4):
        output, compiled = calls(torch.ones(2))
        assert not compiled and output.tolist() == [2.0, 2.0]
    assert len(verdicts) == 1 and not verdicts[0].kept


def test_a_known_verdict_needs_no_trial():
    for kept in (True, False):
        calls, verdicts = trial(compiled=2.0, verdict=Verdict(kept))
        assert calls(torch.ones(2))[1] == kept and not verdicts


# the process

@pytest.mark.parametrize("how", [{"compiler": lambda: None}, {"free": lambda: 1 << 30}])
def test_without_a_compiler_or_memory_nothing_starts(tmp_path, how):
    compiler = Compiler(tmp_path / "code", **how)
    assert compiler.find(NOTHING) is compiler.find(NOTHING) is None and not compiler.folder.exists()


def test_a_missing_compiler_is_told_in_one_line(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiler = Compiler(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert compiler.find(NOTHING) is compiler.find(NOTHING) is None
    assert [record.getMessage() for record in caplog.records] == ["networks are not compiled, as there is no C++ compiler (no-such-compiler)"]


def test_what_cannot_be_compiled_is_tried_once(tmp_path, caplog):
    compiler = Compiler(tmp_path / "code", niceness=0, compiler=lambda: "c++")
    assert compiler.find(NOTHING) is None
    compiler.wait()
    assert "stays as it is" in caplog.text and "NoSuchNetwork" in (compiler.folder / "log.txt").read_text()
    assert compiler.find(NOTHING) is None and compiler._process is None


def test_a_folder_that_cannot_be_made_stops_no_job(tmp_path, caplog):
    (tmp_path / "file").touch()
    compiler = Compiler(tmp_path / "file" / "code", compiler=lambda: "c++")
    assert compiler.find(NOTHING) is None and "cannot be compiled" in caplog.text
    compiler.decide(NOTHING, Verdict(False))


def test_compiling_ends_with_its_program(tmp_path):
    compiler = Compiler(tmp_path, niceness=0, compiler=lambda: "c++")
    assert compiler.find(NOTHING) is None
    process = compiler._process
    compiler.close()
    assert process.returncode is not None and compiler._process is None
