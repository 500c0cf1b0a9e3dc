"""Where real models' weights go on cards of 8 to 24 GB, from their files' headers."""

import pytest
import torch

from pipeline.errors import ModelError
from pipeline.families.placement import Placement
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.options import Options
from tests.families import full_size

CARD = Placement(torch.device("cuda"), torch.bfloat16, torch.bfloat16)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full-size")
    full_size.models(folder)
    return Catalog(folder)


def plan(catalog, model, gigabytes, main=64.0):
    store = ModelStore(catalog, CARD, catalog.find_checkpoint(model), free=lambda device: round(gigabytes * 2**30), main=lambda: round(main * 2**30))
    return store.plan(Options())


@pytest.mark.parametrize("model, gigabytes, offload, line", [
    ("z-image", 24, "none", "20.5 GB on cuda"),
    ("z-image", 16, "encoders", "12.5 GB on cuda, text encoders (8.0 GB) in main memory"),
    ("z-image", 12, "sequential", "20.5 GB in main memory, one layer at a time on cuda"),
    ("z-image", 8, "sequential", "20.5 GB in main memory, one layer at a time on cuda"),
    ("klein", 24, "none", "16.0 GB on cuda"),
    ("klein", 16, "encoders", "7.9 GB on cuda, text encoders (8.0 GB) in main memory"),
    ("klein", 12, "encoders", "7.9 GB on cuda, text encoders (8.0 GB) in main memory"),
    ("klein", 11, "encoders", "7.9 GB on cuda, text encoders (8.0 GB) in main memory"),
    ("z-image-fp8", 16, "none", "14.4 GB on cuda"),
    ("z-image-fp8", 12, "encoders", "6.3 GB on cuda, text encoders (8.0 GB) in main memory"),
    ("klein-fp8", 8, "encoders", "4.0 GB on cuda, text encoders (8.0 GB) in main memory"),
    ("klein", 8, "sequential", "16.0 GB in main memory, one layer at a time on cuda"),
])
def test_what_a_card_cannot_hold_waits_in_main_memory_text_encoders_first(catalog, model, gigabytes, offload, line):
    made = plan(catalog, model, gigabytes)
    assert (made.offload, made.line) == (offload, line) and made.peak <= gigabytes * 2**30


@pytest.mark.parametrize("gigabytes, main, said", [
    (1.5, 64, 'model "klein.safetensors" needs 1.9 GB of the memory of cuda in bfloat16 even with one layer there at a time, and 1.6 GB are free'),
    (8, 12, 'model "klein.safetensors" needs 16.0 GB of main memory in bfloat16, and 12.9 GB are free'),
    (12, 6, 'model "klein.safetensors" needs 8.0 GB of main memory in bfloat16, and 6.4 GB are free'),
])
def test_a_model_that_cannot_fit_is_refused_with_numbers(catalog, gigabytes, main, said):
    with pytest.raises(ModelError, match=f"^{said}$"):
        plan(catalog, "klein", gigabytes, main)
