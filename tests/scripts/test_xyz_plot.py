"""X/Y/Z plot: the axes, their values, and the grids of what they give."""

import numpy as np
import pytest

from pipeline import families, scripts
from pipeline.errors import InvalidRequest, ModelError
from pipeline.infotext import parse
from pipeline.processing import process_images
from pipeline.scripts.axes import AXES, find_axis, parse_values
from pipeline.scripts.xyz_plot import XYZPlot, ordered, ruler
from tests.families.tiny import make


def args(x=("Nothing", ""), y=("Nothing", ""), z=("Nothing", ""), **settings):
    axes = {f"{name}_{part}": value for name, axis in zip("xyz", (x, y, z))
            for part, value in zip(("type", "values", "values_dropdown"), [*axis, None][:3])}
    return list((vars(XYZPlot()) | axes | settings).values())


def plot(make, *axes, fields={}, **settings):
    return scripts.run(make(script_name="X/Y/Z plot", script_args=args(*axes, **settings), **fields))


# --- axes and values

def test_axes_are_counted_as_in_a1111():
    places = {
        1: "Seed", 5: "CFG Scale", 7: "Prompt S/R", 9: "Sampler", 10: "Checkpoint name", 16: "Schedule type", 23: "Clip skip",
        24: "Denoising", 28: "VAE", 30: "UniPC Order", 34: "Always discard next-to-last sigma", 36: "Refiner checkpoint",
        38: "RNG source", 40: "Size", 41: "[Hypertile] Unet First pass Enabled", 49: "[Hypertile] VAE Swap Size",
        50: "Distilled CFG Scale",  # not in A1111
    }
    assert {place: AXES[place].label for place in places} == places and len(AXES) == 51


@pytest.mark.parametrize("given, label", [(None, "Nothing"), (4, "Steps"), ("cfg scale", "CFG Scale")])
def test_an_axis_is_counted_or_named(given, label):
    assert find_axis(given).label == label


@pytest.mark.parametrize("given", [51, -1, "Speed", True, 1.5])
def test_an_unknown_axis_is_refused(given):
    with pytest.raises(InvalidRequest, match="an axis must be a number from 0 to 50 or one of Nothing, Seed"):
        find_axis(given)


@pytest.mark.parametrize("axis, text, values", [
    ("Steps", "1, 5,,9", [1, 5, 9]),
    ("Steps", "1-3", [1, 2, 3]), ("Steps", "1-9(+4)", [1, 5, 9]), ("Steps", "1-10 [4]", [1, 4, 7, 10]),
    ("Steps", "1-2, 8", [1, 2, 8]), ("Steps", "9-5(-2)", [9, 7]), ("Seed", "-1", [-1]),
    ("CFG Scale", "1-2(+0.5)", [1.0, 1.5, 2.0]), ("CFG Scale", "0-1(+0.3)", [0.0, 0.3, 0.6, 0.9, 1.2]),
    ("CFG Scale", "1-3[3]", [1.0, 2.0, 3.0]), ("CFG Scale", "7", [7.0]),
    ("Prompt S/R", 'a, "b, c" , d', ["a", "b, c", "d"]),
    ("Prompt order", "a,b", [("a", "b"), ("b", "a")]),
])
def test_a_text_stands_for_values(axis, text, values):
    found, written = parse_values(find_axis(axis), text, None, as_text=False)
    assert found == (pytest.approx(values) if isinstance(values[0], float) else values) and written == text


def test_axes_with_names_read_the_list_unless_text_is_asked_for():
    axis = find_axis("Sampler")
    assert parse_values(axis, "ignored", ["Euler", "DPM++ 2M"], as_text=False) == (["Euler", "DPM++ 2M"], "Euler,DPM++ 2M")
    assert parse_values(axis, "Euler, Heun", ["ignored"], as_text=True) == (["Euler", "Heun"], "Euler, Heun")


@pytest.mark.parametrize("axis, text, names, sentence", [
    ("Seed", "", None, "Seed must have 1 to 1000 values"),
    ("Steps", "few", None, "Steps values must be numbers or ranges such as 1-5"),
    ("Steps", "1-100000", None, "Steps values must be numbers or ranges"),
    ("Steps", 5, None, "Steps values must be text, got 5"),
    ("Sampler", "Euler", None, "Sampler must have 1 to 1000 values"),
    ("Sampler", "", [1], "Sampler values must be a list of names"),
    ("Prompt order", "a,b,c,d,e,f,g", None, "can order at most 6 words, got 7"),
])
def test_bad_values_are_refused(axis, text, names, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        parse_values(find_axis(axis), text, names, as_text=False)


@pytest.mark.parametrize("axis, value, values, changes", [
    ("Prompt S/R", "dog", ["cat", "dog"], {"prompt": "a dog and a dog", "negative_prompt": "red"}),
    ("Prompt order", ("and", "cat"), [], {"prompt": "a and cat a cat"}),
    ("Size", "32x48", [], {"width": 32, "height": 48}),
    ("Clip skip", 2, [], {"override_settings": {"CLIP_stop_at_last_layers": 2}}),
    ("Always discard next-to-last sigma", "True", [], {"override_settings": {"always_discard_next_to_last_sigma": True}}),
    ("Styles", "a,b", [], {"styles": ["a", "b"]}),
    ("Denoising", 0.5, [], {"denoising_strength": 0.5}),
])
def test_a_value_changes_the_request(request_for, axis, value, values, changes):
    p = request_for(prompt="a cat and a cat", negative_prompt="red")
    assert find_axis(axis).apply(p, value, values) == changes


@pytest.mark.parametrize("axis, text, sentence", [
    ("Prompt S/R", "dog,cat", 'Prompt S/R did not find "dog"'),
    ("Prompt order", "forest,dog", 'Prompt order did not find "dog"'),
    ("Size", "32", 'a Size must be like 512x768, got "32"'), ("Steps", "2,0", "steps must be a whole number"),
    ("[Hypertile] Unet Max Depth", "1", "this axis varies hypertile_max_depth_unet, which does not exist here"),
])
def test_a_value_that_cannot_be_run_is_refused_before_the_first_cell(watched, axis, text, sentence):
    p = watched(script_name="X/Y/Z plot", script_args=args(("Seed", "1,2"), (axis, text)))
    with pytest.raises(InvalidRequest, match=sentence):
        scripts.run(p)
    assert p.progress.done == 0


@pytest.mark.parametrize("axis, value, text", [
    ("Seed", 5, "Seed: 5"), ("Denoising", 0.1 + 0.2, "Denoising: 0.3"), ("Prompt S/R", "dog", "dog"),
    ("Sampler", "Euler", "Euler"), ("Prompt order", ("a", "b"), "a, b"), ("Nothing", 0, ""),
    ("Checkpoint name", "sub/model.safetensors", "model.safetensors"),
])
def test_legends_name_the_values(axis, value, text):
    assert find_axis(axis).legend(find_axis(axis).label, value) == text


def test_what_is_dear_to_change_is_changed_last():
    def first_four(*axes):
        return list(ordered([ruler(XYZPlot(*args(*axes)), name) for name in "xyz"]))[:4]
    checkpoint, vae = ("Checkpoint name", "", ["a", "b"]), ("VAE", "", ["a", "b"])
    seed, steps = ("Seed", "1-2"), ("Steps", "1-2")
    assert first_four(seed, vae, checkpoint) == [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)]
    assert first_four(checkpoint, seed, steps) == [(0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]


# --- plots

def test_the_grid_alone_is_given_unless_more_is_asked_for(request_for):
    axes = ("Seed", "1"), ("Denoising", "0.4,0.8"), ("CFG Scale", "1,7")
    for images, grids, count in ((False, False, 1), (True, True, 1 + 2 + 4)):
        result = plot(request_for, *axes, draw_legend=False, include_lone_images=images, include_sub_grids=grids)
        assert len(result.images) == len(result.infotexts) == len(result.paths) == count
        assert result.images[0].size == (2 * 64, 2 * 64)
        assert result.index_of_first_image == (3 if images else 0)


def test_a_cell_is_what_the_request_gives_alone(request_for):
    result = plot(request_for, ("Seed", "5,6"), ("Denoising", "0.4,0.8"), draw_legend=False, include_lone_images=True)
    alone = process_images(request_for(seed=6, denoising_strength=0.8)).images[0]
    assert np.abs(np.asarray(result.images[4]).astype(int) - np.asarray(alone)).max() <= 1
    assert np.array_equal(np.asarray(result.images[0])[64:, 64:], np.asarray(result.images[4]))
    assert parse(result.infotexts[4])["Seed"] == "6" and "Script" not in parse(result.infotexts[4])


def test_the_grids_infotext_tells_the_axes(request_for):
    axes = ("Seed", "5, -1"), ("Sampler", "", ["Euler", "Euler a"]), ("CFG Scale", "1-2")
    result = plot(request_for, *axes, include_sub_grids=True)
    whole, sub = parse(result.infotexts[0]), parse(result.infotexts[2])
    keys = ("Script", "X Type", "X Values", "Y Values")
    assert [whole[key] for key in keys] == ["X/Y/Z plot", "Seed", "5, -1", "Euler,Euler a"]
    assert whole["Fixed X Values"].startswith("5, ") and "-1" not in whole["Fixed X Values"]
    assert (whole["Z Type"], whole["Z Values"]) == ("CFG Scale", "1-2")
    assert "Z Type" not in sub and sub["CFG scale"] == "2.0"


def test_a_grids_infotext_tells_the_options_as_they_stand(request_for):
    """As A1111 restores them before it writes that."""
    mine = {"randn_source": "NV", "add_model_hash_to_info": False, "CLIP_stop_at_last_layers": 2}
    result = plot(request_for, ("Clip skip", "1,2"), include_lone_images=True, fields={"override_settings": mine})
    grid, cell = parse(result.infotexts[0]), parse(result.infotexts[-1])
    assert (grid["RNG"], grid["Clip skip"], "Model hash" in grid) == ("GPU", "1", True)
    assert (cell["RNG"], cell["Clip skip"], "Model hash" in cell) == ("NV", "2", False)


def test_with_a_legend_the_grid_is_larger(request_for):
    image, = plot(request_for, ("Seed", "1,2"), margin_size=8).images
    assert image.width == 2 * 64 + 8 and image.height > 64


@pytest.mark.parametrize("settings, seeds", [
    ({"vary_seeds_x": True}, [1, 2, 1, 2]), ({"vary_seeds_y": True}, [1, 1, 2, 2]),
    ({"vary_seeds_x": True, "vary_seeds_y": True}, [1, 2, 3, 4]),
])
def test_seeds_can_vary_along_axes(request_for, settings, seeds):
    result = plot(request_for, ("Steps", "1,2"), ("Denoising", "0.4,0.8"), include_lone_images=True, **settings)
    assert [int(parse(text)["Seed"]) for text in result.infotexts[1:]] == seeds


def test_a_random_seed_is_drawn_once_unless_kept(request_for):
    for kept in (False, True):
        result = plot(request_for, ("Steps", "1,2"), fields={"seed": -1}, include_lone_images=True, no_fixed_seeds=kept)
        assert (len({parse(text)["Seed"] for text in result.infotexts[1:]}) == 2) is kept


def test_a_cell_of_several_pictures_shows_their_grid(request_for):
    image, = plot(request_for, ("Steps", "1,2"), draw_legend=False, fields={"batch_size": 2}).images
    assert image.size == (2 * 128, 64)
    fields = {"batch_size": 2, "override_settings": {"return_grid": False}}
    image, = plot(request_for, ("Steps", "1,2"), draw_legend=False, fields=fields).images
    assert image.size == (2 * 64, 64)


def test_another_checkpoint_is_loaded_for_its_cells_and_one_that_is_not_there_is_left_blank(watched, demo):
    def load(options):
        if options.sd_model_checkpoint == "missing":
            raise ModelError("there is no such model")
        return demo
    p = watched(script_name="X/Y/Z plot", script_args=args(("Checkpoint name", "", ["missing", "demo"]), draw_legend=False))
    p.load_model = load
    result = scripts.run(p)
    pixels = np.asarray(result.images[0])
    assert not pixels[:, :64].any() and pixels[:, 64:].any()
    assert result.comments == ["missing could not be made: there is no such model"]


def test_where_every_cell_fails_the_plot_does(request_for):
    with pytest.raises(InvalidRequest, match="sd_model_checkpoint"):
        plot(request_for, ("Checkpoint name", "", ["a", "b"]))


def test_stopped_the_rest_is_black(watched):
    p = watched(stop_after=1, script_name="X/Y/Z plot", script_args=args(("Seed", "1-3"), draw_legend=False))
    result = scripts.run(p)
    assert result.interrupted and result.images[0].size == (192, 64)
    assert not np.asarray(result.images[0])[:, 64:].any()


@pytest.mark.parametrize("x, y, fields", [("1-900", "1-900", {}), ("1-100", "1", {"width": 2048, "height": 2048})])
def test_a_plot_that_is_too_large_is_refused(request_for, x, y, fields):
    with pytest.raises(InvalidRequest, match="is too large; at most 5000 of less than 200 megapixels in total are allowed"):
        plot(request_for, ("Seed", x), ("Steps", y), fields=fields)


def test_only_the_grid_is_saved_as_one(request_for, tmp_path):
    plot(request_for, ("Seed", "1,2"), fields={"outpath_grids": str(tmp_path)}, include_sub_grids=True)
    assert [file.name for file in tmp_path.rglob("*.png")] == ["00000-xyz_grid.png"]


def test_a_grids_infotext_tells_the_mask_weight_of_its_first_cell_where_an_axis_varies_it(request_for, tmp_path):
    """A1111 has it as a field of the run; what override_settings says of it is not told."""
    model = families.load(make("sd1-inpainting", tmp_path)[0], families.placement.choose("cpu", "float32"))
    axes = (("Cond. Image Mask Weight", "0.25, 0.75"), ("Nothing", ""), ("Clip skip", "1, 2"))
    told = plot(request_for, *axes, fields={"sd_model": model}, include_sub_grids=True, include_lone_images=True)
    grid, *_, last = [parse(text)["Conditional mask weight"] for text in told.infotexts]
    assert (grid, last) == ("0.25", "0.75")
    plain = plot(request_for, ("Steps", "1, 2"), fields={"sd_model": model, "override_settings": {"inpainting_mask_weight": 0.5}})
    assert parse(plain.infotexts[0])["Conditional mask weight"] == "1.0"
