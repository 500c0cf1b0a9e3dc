"""A canvas with a large picture, alone on a page: what it holds, and what is seen of its mask."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.editor import open_ours, our_page, strokes

CANVAS = "window.palimpsest.canvases.of('editor')"
MIB = 2**20
SIZE = 4096


@pytest.fixture(scope="module")
def large_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("large") / "large.png"
    Image.new("RGB", (SIZE, SIZE), "teal").save(file)
    return file


@pytest.fixture
def small_file(tmp_path):
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "small.png")
    return tmp_path / "small.png"


@pytest.fixture
def alone(browser):
    """A page with a canvas and nothing else, and what puts a file into it."""
    with our_page() as address, browser.new_context(viewport={"width": 1000, "height": 700}) as context:
        page = context.new_page()
        page.add_init_script("""(() => {
            const { createObjectURL, revokeObjectURL } = URL;
            window.addresses = new Set();
            URL.createObjectURL = (blob) => { const made = createObjectURL.call(URL, blob); addresses.add(made); return made; };
            URL.revokeObjectURL = (made) => { addresses.delete(made); return revokeObjectURL.call(URL, made); };
        })()""")
        yield page, open_ours(page, address)[0]


def held(page):
    """Bytes of all pixels and numbers that are alive on the page once garbage is collected, by kind; and its object URLs."""
    session = page.context.new_cdp_session(page)
    found = {"addresses": page.evaluate("addresses.size")}
    for kind in ("HTMLCanvasElement", "OffscreenCanvas", "ImageBitmap"):
        prototype = session.send("Runtime.evaluate", {"expression": f"{kind}.prototype", "objectGroup": "held"})["result"]
        alive = session.send("Runtime.queryObjects", {"prototypeObjectId": prototype["objectId"], "objectGroup": "held"})["objects"]
        found[kind] = session.send("Runtime.callFunctionOn", {
            "objectId": alive["objectId"], "returnByValue": True,
            "functionDeclaration": "function () { return this.reduce((sum, one) => sum + 4 * one.width * one.height, 0); }"})["result"]["value"]
    session.send("Runtime.releaseObjectGroup", {"objectGroup": "held"})
    session.send("HeapProfiler.collectGarbage")
    found["numbers"] = session.send("Runtime.getHeapUsage")["backingStorageSize"]
    session.detach()
    return found


def total(found):
    return sum(found.values())


def quiet(page):
    """Wait until the picture's smaller copies are made, and the browser has kept what there is."""
    page.evaluate(f"""async () => {{
        const canvas = {CANVAS};
        await new Promise((done) => setTimeout(done, 1000));
        await canvas.storage.last;
    }}""")


def use_every_store(page):
    """What the tools keep while they are at work: strokes, the picture's colours, a preview, something undone."""
    box = page.locator("#editor .stage").bounding_box()
    strokes(page, box, 3)
    page.keyboard.press("Control+z")
    page.evaluate(f"""() => {{
        const canvas = {CANVAS};
        canvas.choose("fill");
        canvas.tools.fill.down({{ x: 4000, y: 4000 }});
        canvas.undo();
        canvas.change();
    }}""")


def test_fifty_strokes_on_a_large_picture_take_less_than_200_mb_with_the_picture_and_all(alone, large_file):
    page, load = alone
    load(large_file)
    quiet(page)
    with_picture = total(held(page))
    painted = page.evaluate(f"""() => {{
        const {{ document }} = {CANVAS};
        for (let i = 0; i < 50; i++) {{
            const edit = document.begin({{ value: i % 3 === 1 ? 0 : 255, strength: 1 }});
            edit.stroke({{ x: 500 + 60 * i, y: 500, radius: 128 }}, {{ x: 3500 - 60 * i, y: 3500, radius: 128 }}, 0.8);
            document.commit();
        }}
        return document.history.past.length;
    }}""")
    quiet(page)
    assert painted == 50
    found = held(page)
    assert total(found) - with_picture < 32 * MIB and total(found) < 150 * MIB, found


def test_what_is_packed_for_undo_comes_back_and_is_small(alone):
    page, _ = alone
    bad, soft = page.evaluate("""async () => {
        const { pack, unpack } = await import(new URL("web/canvas/history.js", document.baseURI));
        const tile = (of, length = 65536) => Uint8ClampedArray.from({ length }, (_, i) => of(i));
        let state = 1;
        const random = () => (state = (state * 1103515245 + 12345) % 2 ** 31) / 2 ** 31;
        const soft = tile((i) => 10 * (i % 256 - 100));
        const tiles = [soft, tile(() => 0), tile(() => 256 * random()), tile((i) => i >> 1), tile((i) => (i % 4 ? 7 : i >> 2)),
            tile((i) => (random() < 0.1 ? i : 0)), tile((i) => (i < 150000 ? 5 : i), 200000), tile((i) => i, 4), tile(() => 3, 8)];
        const bad = [];
        for (const [at, values] of tiles.entries()) for (const channels of [1, 4]) {
            const packed = pack(values.slice(), channels), back = unpack(packed);
            if (packed.bytes > values.length || back.length !== values.length || values.some((value, i) => value !== back[i])) bad.push([at, channels]);
        }
        return [bad, pack(soft, 1).bytes];
    }""")
    assert not bad and soft < 65536 / 7  # an edge of 26 greys, and two runs, in each row of 256


def test_memory_goes_back_when_the_picture_changes(alone, large_file, small_file):
    page, load = alone
    load(small_file)
    quiet(page)
    before = held(page)
    load(large_file)
    use_every_store(page)
    quiet(page)
    assert total(held(page)) > total(before) + 64 * MIB
    load(small_file)
    quiet(page)
    after = held(page)
    assert total(after) - total(before) < MIB / 2 and after["addresses"] == before["addresses"], (before, after)


# scale, and the point of the picture that is moved to the stage's middle
@pytest.mark.parametrize(("scale", "middle"), [(None, None), (0.3, (2000, 2000)), (0.5, (3900, 300)), (1, (500, 3800)), (1, (3000, 500)), (3, (1152, 1152))])
def test_the_mask_is_seen_where_it_is_at_any_zoom(alone, large_file, scale, middle):
    page, load = alone
    load(large_file)
    cells = np.random.default_rng(1).integers(0, 256, (16, 16))
    seen = page.evaluate("""async ([cells, scale, middle]) => {
        const { document, view } = """ + CANVAS + """, frame = () => new Promise(requestAnimationFrame);
        document.rewrite((numbers) => {
            for (let y = 0, at = 0; y < 4096; y++) for (let x = 0; x < 4096; x++, at++) numbers[at] = cells[y >> 8][x >> 8];
        });
        await frame();
        if (scale) {
            view.centre(scale);
            await frame();
            view.pan((2048 - middle[0]) * scale, (2048 - middle[1]) * scale);
        }
        await frame();
        await frame();
        const seen = [];
        for (let row = 0; row < 16; row++) for (let column = 0; column < 16; column++) {
            const { x, y } = view.onScreen({ x: column * 256 + 128, y: row * 256 + 128 });
            if (x < 0 || y < 0 || x >= view.width || y >= view.height) continue;
            seen.push([row, column, view.over.getImageData(Math.floor(x), Math.floor(y), 1, 1).data[3]]);
        }
        return seen;
    }""", [cells.tolist(), scale, middle])
    assert len(seen) >= (1 if scale else 256)
    assert all(abs(cells[row, column] - alpha) <= 1 for row, column, alpha in seen), seen


def test_a_thin_line_is_seen_from_afar(alone, large_file):
    page, load = alone
    load(large_file)
    alphas = page.evaluate("""async () => {
        const { document, view } = """ + CANVAS + """, frame = () => new Promise(requestAnimationFrame);
        const seen = [];
        for (let line = 2000; line < 2010; line++) {
            document.rewrite((numbers) => numbers.fill(0).fill(255, line * 4096, (line + 1) * 4096));
            await frame();
            await frame();
            const column = view.over.getImageData(Math.round(view.width / 2), 0, 1, view.height).data.filter((_, i) => i % 4 === 3);
            seen.push([view.scale, column.reduce((sum, alpha) => sum + alpha, 0)]);
        }
        return seen;
    }""")
    assert all(abs(sum_of_alpha / (255 * scale) - 1) < 0.35 for scale, sum_of_alpha in alphas), alphas
