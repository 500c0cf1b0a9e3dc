"""The tab Batch: what is asked for there, and a batch in a real browser."""

import re

import gradio as gr
import pytest
from PIL import Image
from playwright.sync_api import expect

from pipeline.batch import Batch
from pipeline.errors import InvalidRequest
from pipeline.series import Outcome
from tests.ui.conftest import start
from tests.ui.steps import open_page, open_tab, prepare_a_long_job, set_slider, toast
from ui.batch import DIRECTORY, FOLDERS, UPLOAD, build_batch, read
from ui.stream import duration, report_html

NOTHING = {"source": UPLOAD, "files": [], "masks": [], "input_directory": "", "output_directory": "", "mask_directory": "",
           "reuses": False, "info_directory": "", "reuse": [], "resume": True}


@pytest.fixture
def folder(tmp_path):
    """2.png, 10.png and sub/3.png."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for number, name in enumerate(("2.png", "10.png", "sub/3.png")):
        Image.radial_gradient("L").resize((64, 64)).rotate(30 * number).save(tmp_path / "in" / name)
    return tmp_path / "in"


def asked(folder=None, **others):
    chosen = {} if folder is None else {"source": DIRECTORY, "input_directory": str(folder)}
    return read(NOTHING | chosen | others, shared=False)


def test_uploads_are_taken_in_natural_order_of_their_names(tmp_path):
    files = [tmp_path / name for name in ("a/10.png", "b/9.png", "c/1.png")]
    assert [file.name for file in asked(files=files).files] == ["1.png", "9.png", "10.png"]
    assert asked(files=files).masks is None and asked(files=files, masks=files[:1]).masks == files[:1]


def test_a_folder_gives_its_pictures_and_takes_the_results(folder, tmp_path):
    wanted = asked(f' "{folder}" ', output_directory=str(tmp_path / "new" / "out"))
    assert [file.name for file in wanted.files] == ["2.png", "10.png", "3.png"]
    assert wanted.output_folder == tmp_path / "new" / "out" and wanted.output_folder.is_dir()


def test_results_within_the_input_directory_are_no_inputs(folder):
    assert [file.name for file in asked(folder, output_directory=str(folder / "sub")).files] == ["2.png", "10.png"]


def test_masks_are_those_in_a_folder_and_its_folders(folder):
    wanted = asked(folder, mask_directory=str(folder))
    assert [mask.name for mask in wanted.masks] == ["2.png", "10.png", "3.png"] and wanted.mask_folder == folder
    assert not wanted.some_masked


@pytest.mark.parametrize("where", ["", "{}"])
def test_masks_among_the_pictures_are_known_by_their_names(folder, where):
    (folder / "2.png").rename(folder / "10_mask.png")
    (folder / "1_mask.png").write_bytes((folder / "10.png").read_bytes())  # of no picture here
    wanted = asked(folder, mask_directory=where.format(folder))
    assert [file.name for file in wanted.files] == ["1_mask.png", "10.png", "3.png"]
    assert [mask.name for mask in wanted.masks] == ["10_mask.png"] and wanted.some_masked


def test_masks_among_uploads_are_known_by_their_names_and_notes_of_macos_are_none(tmp_path):
    files = [tmp_path / name for name in ("a/1.png", "b/1_mask.jpg", "c/2.png", "d/._1.png")]
    wanted = asked(files=files)
    assert [file.name for file in wanted.files] == ["1.png", "2.png"] and wanted.some_masked
    assert [mask.name for mask in wanted.masks] == ["1_mask.jpg"]
    assert len(asked(files=files, masks=files[:1]).files) == 3


def test_infotext_is_reused_only_when_it_is_switched_on(folder, tmp_path):
    assert asked(folder, reuse=["Seed"], info_directory=str(folder / "gone")).reuse == ()
    wanted = asked(folder, reuses=True, reuse=["Seed"], info_directory=str(tmp_path))
    assert (wanted.reuse, wanted.info_folder) == (["Seed"], tmp_path)


@pytest.mark.parametrize("given, sentence", [
    ({"source": DIRECTORY}, "Input directory: enter a folder"),
    ({"source": DIRECTORY, "input_directory": "{}/gone"}, 'Input directory: folder ".*gone" does not exist'),
    ({"source": DIRECTORY, "input_directory": "{}/empty"}, 'Input directory: ".*empty" contains no pictures; valid: .png'),
    ({"source": DIRECTORY, "input_directory": "{}", "output_directory": "{}"}, "Output directory: this is the input directory"),
    ({"source": DIRECTORY, "input_directory": "{}", "output_directory": "{}/2.png"}, "Output directory: .* cannot be a folder"),
    ({"source": DIRECTORY, "input_directory": "{}", "mask_directory": "{}/gone"}, "Inpaint batch mask .* does not exist"),
    ({"source": DIRECTORY, "input_directory": "{}", "mask_directory": "{}/empty"}, "Inpaint batch mask .* no pictures"),
    ({"reuses": True, "reuse": ["Seed"], "info_directory": "{}/gone"}, "PNG info directory: folder .* does not exist"),
    ({"reuses": True}, "Parameters to take from png info: tick at least one")])
def test_one_sentence_names_what_was_filled_in_wrongly(folder, given, sentence):
    (folder / "empty").mkdir()
    values = {name: value.format(folder) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(InvalidRequest, match=sentence):
        asked(**values)


def test_a_shared_page_has_no_folders_and_takes_none(folder):
    import gradio as gr
    with gr.Blocks():
        assert not {"source", *FOLDERS} & build_batch(gr.Button(), shared=True).inputs.keys()
    for name in FOLDERS:
        with pytest.raises(InvalidRequest, match="a shared page cannot use the server's folders"):
            read(NOTHING | {name: str(folder)}, shared=True)
    assert isinstance(read(NOTHING | {"files": [folder / "2.png"]}, shared=True), Batch)


@pytest.mark.parametrize("outcome, sentence", [
    (Outcome(40), "40 files"), (Outcome(40, made=3), "40 files · 3 are done now"),
    (Outcome(40, made=3, already=12), "40 files · 12 were done already · 3 are done now"),
    (Outcome(40, made=3, cut=1), "40 files · 3 are done now · 1 ended early"),
    (Outcome(2, failures=(("a.png", "why"), ("b.png", "why"))), "2 files · 2 could not be done")])
def test_the_report_counts(outcome, sentence):
    assert sentence in report_html(outcome)


def test_the_report_shows_names_and_reasons_as_they_are():
    shown = report_html(Outcome(1, failures=(("<b>.png", "<i>"),), comments=("<u>",)))
    assert "<td>&lt;b&gt;.png</td><td>&lt;i&gt;</td>" in shown and "<p>&lt;u&gt;</p>" in shown


@pytest.mark.parametrize("seconds, text", [(4.23, "4.2 s"), (200, "3 min 20 s"), (3900, "1 h 5 min")])
def test_a_duration_is_told_in_words(seconds, text):
    assert duration(seconds) == text


# --- in the browser


def prepare(page, steps=3):
    """Small pictures in a few steps."""
    open_tab(page, "Batch")
    for label, value in (("Width", 64), ("Height", 64), ("Sampling steps", steps)):
        set_slider(page, label, value)


def upload(page, element, files):
    page.locator(f"#{element} input[type=file]").set_input_files([str(file) for file in files])
    expect(page.locator(f"#{element} tr.file")).to_have_count(len(files))


def begin(page):
    page.locator("#generate-batch").click()


def report(page):
    return page.locator("#report")


def shown(page):
    return page.locator("#gallery .tile[data-file]")


def test_a_damaged_upload_costs_no_other_and_a_second_start_does_nothing_again(page, folder):
    (folder / "5.png").write_bytes(b"no picture")
    prepare(page)
    upload(page, "batch-files", [folder / name for name in ("2.png", "10.png", "5.png")])
    begin(page)
    expect(report(page)).to_contain_text("3 files · 2 are done now · 1 could not be done")
    expect(report(page).locator("td")).to_have_text(["5.png", re.compile("the file is not a picture that can be read")])
    expect(shown(page)).to_have_count(2)
    begin(page)
    expect(report(page)).to_contain_text("3 files · 2 were done already · 1 could not be done")
    expect(shown(page)).to_have_count(2)


def test_a_folder_with_masks_is_done_into_another(page, folder, tmp_path, server):
    for name in ("2.png", "3.png"):
        mask = tmp_path / "masks" / name
        mask.parent.mkdir(exist_ok=True)
        Image.new("L", (64, 64), "white").save(mask)
    prepare(page)
    page.get_by_label("From directory").check()
    page.get_by_label("Input directory").fill(str(folder))
    page.get_by_label("Output directory").fill(str(tmp_path / "out"))
    page.get_by_label("Inpaint batch mask directory").fill(str(tmp_path / "masks"))
    begin(page)
    expect(report(page)).to_contain_text("3 files · 2 are done now · 1 could not be done")
    expect(report(page).locator("td")).to_have_text(["10.png", "mask: none of the 2 masks has this file's name"])
    assert sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.png")) == ["2.png", "sub/3.png"]
    page.get_by_label("Input directory").fill(str(folder / "gone"))
    begin(page)
    expect(toast(page)).to_contain_text("Input directory: folder")


def test_after_a_reload_the_batch_is_found_again_and_goes_on(page, folder):
    for number in range(20, 24):
        Image.linear_gradient("L").resize((64, 64)).rotate(number).save(folder / f"{number}.png")
    prepare(page, steps=150)
    files = sorted(folder.glob("*.png"))
    upload(page, "batch-files", files)
    begin(page)
    expect(page.locator("#stage .line")).to_contain_text(re.compile(rf"file [23] of {len(files)} · step"))
    shown(page).first.wait_for()
    page.reload()
    expect(page.locator("#stage .line")).to_contain_text(re.compile(rf"file \d+ of {len(files)} · step"))
    expect(report(page)).to_contain_text(f"{len(files)} files · {len(files)} are done now")
    expect(shown(page)).to_have_count(len(files))
    page.reload()
    expect(shown(page)).to_have_count(len(files))


def test_interrupt_ends_a_batch_and_keeps_what_there_is(page, folder):
    open_tab(page, "Batch")
    prepare_a_long_job(page)
    upload(page, "batch-files", [folder / "2.png", folder / "10.png"])
    begin(page)
    expect(page.locator("#stage .line")).to_contain_text("file 1 of 2 · step")
    page.locator("#interrupt").click()
    expect(report(page)).to_contain_text("2 files · 1 ended early")
    expect(shown(page)).to_have_count(1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    yield from start("--host", "0.0.0.0", "--auth", "me:secret", outputs=tmp_path_factory.mktemp("shared") / "outputs")


def test_a_shared_page_offers_uploads_only(browser, shared, folder):
    context = browser.new_context(http_credentials={"username": "me", "password": "secret"})
    page = context.new_page()
    open_page(page, shared.url)
    open_tab(page, "Batch")
    upload(page, "batch-files", [folder / "2.png"])
    for label in ("Input directory", "Output directory", "Inpaint batch mask", "PNG info directory", "From directory"):
        expect(page.get_by_label(label)).to_have_count(0)
    context.close()
