"""A refiner must see the source as the model does that it takes over from."""

from types import SimpleNamespace

import pytest

from pipeline.errors import InvalidRequest
from pipeline.processing import check_refiner

PLAIN, INPAINTING, EDIT = (SimpleNamespace(sees=sees, info=SimpleNamespace(name="fine")) for sees in ("nothing", "masked source", "source"))


@pytest.mark.parametrize("refiner, model", [(PLAIN, PLAIN), (PLAIN, INPAINTING), (PLAIN, EDIT), (INPAINTING, INPAINTING), (EDIT, EDIT)])
def test_a_refiner_takes_over_from_its_own_kind_and_a_plain_one_from_any(refiner, model):
    check_refiner(refiner, model)


@pytest.mark.parametrize("refiner, model, kind", [
    (INPAINTING, PLAIN, "inpainting"), (INPAINTING, EDIT, "inpainting"), (EDIT, PLAIN, "InstructPix2Pix"),
    (EDIT, INPAINTING, "InstructPix2Pix")])
def test_another_one_is_refused_with_a_sentence(refiner, model, kind):
    with pytest.raises(InvalidRequest, match=f'^refiner_checkpoint: "fine" is an {kind} checkpoint'):
        check_refiner(refiner, model)
