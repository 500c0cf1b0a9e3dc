"""What memory there is, and a model that makes do with less."""

from types import SimpleNamespace

import pytest
import torch

from pipeline import allocator
from pipeline.errors import HookError, ModelError
from pipeline.families.cond import Encoding
from pipeline.families.placement import Placement
from pipeline.geometry import Size
from pipeline.memory import (KEPT, LIBRARIES, Bytes, check_memory, container_memory, free_memory, frugal, is_out_of_memory,
                             keep_freed_where_plenty, plan_memory, read_number, working_memory)

PLENTY = KEPT * working_memory(512**2, torch.float32)


def raised_from(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("error, runs_out", [
    (MemoryError(), True),
    (torch.OutOfMemoryError("CUDA out of memory"), True),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
    (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
    (raised_from(ModelError("it cannot be loaded"), torch.OutOfMemoryError()), True),
    (raised_from(HookError("it failed"), raised_from(ValueError(), MemoryError())), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
    (RuntimeError("HIPBLAS_STATUS_ALLOC_FAILED"), True),
    (RuntimeError("miopenStatusAllocFailed"), True),
    (RuntimeError("std::bad_alloc"), True),
    (OSError(12, "Cannot allocate memory"), True),
    (OSError(28, "No space left on device"), False),
    (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
    (RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE"), False),
    (RuntimeError("sizes must match"), False),
    (ValueError("out of memory"), False),
    (None, False),
])
def test_running_out_of_memory_has_many_faces(error, runs_out):
    assert is_out_of_memory(error) is runs_out


def test_the_processors_free_memory_is_some_bytes_or_not_known():
    free = free_memory(torch.device("cpu"))
    assert free is None or free > 1 << 20


@pytest.mark.parametrize("files, left", [
    ({"memory.max": "1000\n", "memory.current": "900\n", "memory.stat": "anon 5\ninactive_file 300\n"}, 400),
    ({"memory.max": "1000", "memory.current": "900"}, 100),
    ({"memory.max": "1000", "memory.current": "1200"}, 0),
    ({"memory.max": "max", "memory.current": "900"}, None),
    ({}, None),
])
def test_a_container_may_use_what_its_limit_leaves(tmp_path, files, left):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert container_memory(tmp_path, tmp_path / "none") == left


VERSION_1 = {"memory.limit_in_bytes": "1000", "memory.usage_in_bytes": "900", "memory.stat": "inactive_file 9\ntotal_inactive_file 300"}
VERSION_2 = {"memory.max": "1000", "memory.current": "900"}
WIDE = {"memory.max": "max", "memory.current": "5"}


@pytest.mark.parametrize("own, folders, left", [
    ("0::/", {"": VERSION_2}, 100),
    ("0::/user.slice/run.service", {"user.slice": VERSION_2, "user.slice/run.service": WIDE}, 100),
    ("0::/user.slice/run.service", {"user.slice": WIDE, "user.slice/run.service": VERSION_2}, 100),
    ("0::/a/b", {"": WIDE}, None),
    ("0::/../../other", {"": VERSION_2}, 100),
    ("4:memory:/docker/x", {"memory": VERSION_1}, 400),
    ("3:cpu:/\n4:memory:/docker/x", {"memory/docker/x": VERSION_1, "memory": {"memory.limit_in_bytes": "9223372036854771712",
                                                                            "memory.usage_in_bytes": "0"}}, 400),
    ("4:cpu,memory:/a", {"memory/a": VERSION_1}, 400),
    ("4:memory:/a\n0::/b", {"memory/a": VERSION_1, "unified/b": VERSION_2}, 100),
    ("nonsense", {"memory": VERSION_1}, 400),
])
def test_the_limits_of_both_versions_and_of_every_group_around_are_seen(tmp_path, own, folders, left):
    (tmp_path / "own").write_text(own + "\n")
    for folder, files in folders.items():
        (tmp_path / "root" / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (tmp_path / "root" / folder / name).write_text(text)
    assert container_memory(tmp_path / "root", tmp_path / "own") == left


def test_a_batch_that_the_processors_memory_does_not_hold_is_refused_before_it_is_killed(demo):
    need = 3 * 512**2 * 4 * 32 * 4  # the demo's autoencoder has 32 channels at full size
    check_memory(demo, 512**2, 3, lambda device: need)
    for free, how in ((need - 1, {}), (512**2 * 4 * 32 * 4 - 1, {"sparing": True})):
        with pytest.raises(MemoryError):
            check_memory(demo, 512**2, 3, lambda device: free, **how)
    check_memory(demo, 512**2, 3, lambda device: need // 3, sparing=True)
    check_memory(demo, 512**2, 3, lambda device: None)


def test_a_number_of_the_system_is_read_by_its_name(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:   8 kB\nMemAvailable:   3 kB\n")
    assert read_number(tmp_path / "meminfo", "MemAvailable:", unit=1024) == 3072
    assert read_number(tmp_path / "meminfo", "SwapFree:") is None


def test_a_frugal_model_computes_one_row_at_a_time_and_the_same(demo, monkeypatch):
    torch.manual_seed(1)
    x, t = torch.randn(3, 4, 8, 8), torch.tensor([900.0, 500.0, 100.0])
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    cond = demo.encode_prompts(["one", "two", "three"], Encoding())
    image_cond = x.new_zeros(3, 5, 1, 1)
    with torch.inference_mode():
        together = demo.denoise(x, t, cond, image_cond), demo.encode_image(pixels), demo.decode(x)
    rows = []
    for name in ("denoise", "encode_image", "decode"):
        method = getattr(demo, name)
        monkeypatch.setattr(demo, name, lambda batch, *rest, method=method: rows.append(len(batch)) or method(batch, *rest))
    with torch.inference_mode(), frugal(demo) as small:
        alone = small.denoise(x, t, cond, image_cond), small.encode_image(pixels), small.decode(x)
    assert set(rows) == {1} and len(rows) == 3 + 2 + 3
    for ours, theirs in zip(alone, together):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_frugal_model_is_otherwise_the_model_itself(demo):
    with frugal(demo) as small:
        assert small.info is demo.info and small.prediction(Size(64, 64)) is demo.prediction(Size(64, 64))
        assert small.changes.startswith("one picture at a time")


def test_a_frugal_model_decodes_large_pictures_in_tiles_and_afterwards_whole_again(demo):
    vae, latent = demo.modules["vae"], torch.zeros(1, 4, 72, 72)
    tiled = []
    with torch.inference_mode():
        with frugal(demo) as small:
            tiled.append((small.decode(latent).shape[-1], vae.use_tiling, vae.tile_sample_min_size))
        demo.decode(latent)
        tiled.append((latent.shape[-1] * 8, vae.use_tiling, vae.tile_sample_min_size))
    assert tiled == [(576, True, 512), (576, False, 1024)]


class Recorded:
    """A family on a card that only pretends to be there; it remembers which plans it has followed."""

    def __init__(self, room=True):
        self.followed, self.room = [], room
        self.placement = Placement(torch.device("cuda"), torch.float16, torch.float32)
        self.autoencoder = SimpleNamespace(cut_into_tiles=lambda *args, **kwargs: None)
        self.offload = self

    def follow(self, plan):
        self.followed.append(plan)
        if plan == "none" and not self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def forget_edit(self):
        """There is none."""


@pytest.fixture(autouse=True)
def no_card(monkeypatch):
    monkeypatch.setattr("pipeline.memory.collect", lambda device: None)


def test_on_a_card_only_the_layer_that_computes_is_there_and_afterwards_all_are():
    with frugal(family := Recorded()) as small:
        assert family.followed == ["sequential"] and "on the card only while it computes" in small.changes
    assert family.followed == ["sequential", "none"]


def test_what_has_no_room_on_the_card_any_more_stays_in_main_memory_and_the_job_is_not_lost():
    with frugal(family := Recorded(room=False)):
        pass
    assert family.followed == ["sequential", "none", "sequential"]


NETWORKS = {"unet": Bytes(1000, 90), "text_encoder": Bytes(300, 40), "text_encoder_2": Bytes(200, 60), "vae": Bytes(8, 2)}
CARD = Placement(torch.device("cuda"), torch.bfloat16, torch.bfloat16)


@pytest.mark.parametrize("free, offload, peak, waiting", [
    (None, "none", 1558, set()), (1558, "none", 1558, set()),
    (1557, "encoders", 1118, {"text_encoder", "text_encoder_2"}), (1118, "encoders", 1118, {"text_encoder", "text_encoder_2"}),
    (1117, "model", 1050, {*NETWORKS}), (1050, "model", 1050, {*NETWORKS}),
    (1049, "sequential", 100, {*NETWORKS}), (100, "sequential", 100, {*NETWORKS}),
])
def test_the_plan_is_the_first_whose_weights_and_pictures_fit_and_text_encoders_go_first(free, offload, peak, waiting):
    plan = plan_memory("m", NETWORKS, CARD, working=50, least=10, free=free, main=None)
    assert (plan.offload, plan.peak, {*plan.waiting}, plan.free) == (offload, peak, waiting, free)
    assert plan.on_device | plan.waiting == {name: size.whole for name, size in NETWORKS.items()}


@pytest.mark.parametrize("free, main, said", [
    (99, None, 'model "m" needs 0.0 GB of the memory of cuda in bfloat16 even with one layer there at a time, and 0.0 GB are free'),
    (1557, 499, 'model "m" needs 0.0 GB of main memory in bfloat16, and 0.0 GB are free'),
    (1049, 1507, 'model "m" needs 0.0 GB of main memory in bfloat16, and 0.0 GB are free')])
def test_what_fits_nowhere_has_no_plan_but_numbers(free, main, said):
    with pytest.raises(ModelError, match=f"^{said}$"):
        plan_memory("m", NETWORKS, CARD, working=50, least=10, free=free, main=main)
    assert main is None or plan_memory("m", NETWORKS, CARD, working=50, least=10, free=free, main=main + 1)


def test_without_text_encoders_none_can_go_first():
    networks = {"unet": Bytes(1000, 90), "vae": Bytes(900, 2)}
    assert plan_memory("m", networks, CARD, working=50, least=10, free=1949, main=None).offload == "model"


def test_a_picture_of_twice_the_edge_needs_four_times_the_room_besides_the_libraries():
    small, large = (working_memory(size**2, torch.float16) - LIBRARIES for size in (512, 1024))
    assert large == 4 * small == 2**31


@pytest.mark.parametrize("device, free, told", [
    ("cpu", [PLENTY], [True]),
    ("cpu", [PLENTY - 1, PLENTY], ["give back", True]),
    ("cpu", [PLENTY - 1, PLENTY - 1], ["give back", False]),
    ("cpu", [None, None], ["give back", False]),
    ("cuda", [], [False]),
])
def test_freed_memory_is_kept_where_there_is_twice_what_a_picture_needs(monkeypatch, device, free, told):
    """Counted once more after giving back what was kept before."""
    calls, left = [], iter(free)
    monkeypatch.setattr(allocator, "keep_freed", calls.append)
    monkeypatch.setattr(allocator, "give_back", lambda: calls.append("give back"))
    keep_freed_where_plenty(Placement(torch.device(device), torch.float32, torch.float32), 512**2, lambda _: next(left))
    assert calls == told
