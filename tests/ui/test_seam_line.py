"""How visible the seam of an inpainted result is, below it; blended by a click, and undone."""

import re

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from tests.ui.steps import generate, open_tab, pixels, put, result, set_slider, settle


def saved(server) -> set:
    return {path for path in server.outputs.glob("img2img-images/*/*.png") if path.stat().st_size}


def test_a_seam_is_told_blended_and_brought_back(page, picture_file, mask_file, server):
    before = saved(server)
    put(page, "img2img-picture", picture_file)
    set_slider(page, "Sampling steps", 2)
    generate(page, "img2img")
    result(page)
    settle(page)
    expect(page.locator("#seam")).to_be_hidden()  # nothing was masked

    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", picture_file)
    put(page, "upload-mask", mask_file)
    for label, value in (("Width", 160), ("Height", 160), ("Denoising strength", 1)):
        set_slider(page, label, value)
    generate(page, "inpaint_upload")
    expect(page.locator("#seam-said")).to_have_text(re.compile(r"^\s*Seam: (none|faint|visible)\s*$"))
    expect(page.locator("#undo-seam")).to_be_hidden()
    original = pixels(result(page))

    def act(button: str, said: str) -> np.ndarray:
        """The picture that is shown after a click, once the line says so."""
        page.locator(button).click()
        expect(page.locator("#seam-said")).to_have_text(re.compile(rf"^\s*{said}\s*$"))
        settle(page)
        return pixels(result(page))

    blended = act("#blend-seam", "Seam: .* · blended · nothing changed outside the mask")
    changed = (blended != original).any(axis=-1)
    assert changed[60:100, 60:100].any() and not changed[:45].any() and not changed[:, 115:].any()
    expect(page.locator("#infotext textarea")).to_have_value(re.compile("Seam blend: Poisson$"))
    [file] = [path for path in saved(server) - before if path.stem.endswith("-blended")]
    assert (pixels(Image.open(file)) == blended).all()

    assert (act("#undo-seam", "Seam: [a-z]+") == original).all() and not file.exists()
    softened = act("#soften-seam", r"Seam: .* · edge made softer · \d+ pixels changed outside the mask")
    count = int(re.search(r"(\d+) pixels", page.locator("#seam-said").inner_text())[1])
    assert 0 < count <= (softened != original).any(axis=-1).sum()
    assert (act("#undo-seam", "Seam: [a-z]+") == original).all()
    assert len(saved(server) - before) == 2  # of both jobs
