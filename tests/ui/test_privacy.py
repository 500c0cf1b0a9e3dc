"""What a browser keeps, and what a reload leaves in the server's log."""

from tests.conftest import ROOT
from tests.ui.steps import has_picture, prepare_a_long_job

STORED = """async () => [...Object.keys(localStorage), ...Object.keys(sessionStorage),
                         ...(await indexedDB.databases()).map(found => found.name), ...(await caches.keys())]"""


def make_a_picture(page):
    page.locator("#img2img-picture input[type=file]").first.set_input_files(str(ROOT / "assets" / "samples" / "sea.png"))
    has_picture(page)
    page.locator("#generate-img2img").click()


def test_a_browser_keeps_its_id_and_its_settings_and_no_history_of_runs(page, server):
    make_a_picture(page)
    page.locator("#gallery img.picture").wait_for()
    assert all(name == "palimpsest" or name.startswith("palimpsest-") for name in page.evaluate(STORED))
    assert page.request.get(f"{server.url}/gradio_api/runs").status == 404


def test_a_page_that_is_reloaded_during_a_run_leaves_nothing_in_the_log(page, server):
    said = len(server.output)
    prepare_a_long_job(page)
    make_a_picture(page)
    page.locator("#stage img").first.wait_for()
    for _ in range(3):
        page.reload(wait_until="commit")
        page.locator("#prompt textarea").wait_for()
        page.evaluate("""() => {
            const form = new FormData();
            form.append('files', new Blob([new Uint8Array(30_000_000)]), 'large.png');
            fetch('gradio_api/upload', {method: 'POST', body: form});
        }""")
    page.reload()
    page.locator("#interrupt").click()
    page.locator("#gallery img.picture").wait_for()
    assert server.output[said:] == []
