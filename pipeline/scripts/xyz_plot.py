"""X/Y/Z plot: one run for each combination of the values of up to three axes, as annotated grids."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from PIL import Image

from pipeline.describe import create_infotext
from pipeline.errors import InvalidRequest, PalimpsestError
from pipeline.finishing import Output, keep_grid
from pipeline.geometry import Size
from pipeline.grids import Legend, annotate, unreadable
from pipeline.images import image_grid
from pipeline.options import Options
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from pipeline.rng import random_seed
from pipeline.scripts.arguments import argument, free
from pipeline.scripts.axes import AXES, Axis, find_axis, parse_values
from pipeline.scripts.passes import Made, collect, seeded

MAX_CELLS = 5000
MAX_MEGAPIXELS = 200
"""Of the whole grid; must be less."""
SEEDS = ("Seed", "Var. seed")
LABELS = tuple(axis.label for axis in AXES)


@dataclass(frozen=True)
class XYZPlot:
    x_type: Any = free("Seed", "X type", LABELS)
    x_values: Any = free("", "X values")
    x_values_dropdown: Any = free(None, "X values", (), on_page=None)
    y_type: Any = free("Nothing", "Y type", LABELS)
    y_values: Any = free("", "Y values")
    y_values_dropdown: Any = free(None, "Y values", (), on_page=None)
    z_type: Any = free("Nothing", "Z type", LABELS)
    z_values: Any = free("", "Z values")
    z_values_dropdown: Any = free(None, "Z values", (), on_page=None)
    draw_legend: bool = argument(True, "Draw legend")
    include_lone_images: bool = argument(False, "Include Sub Images")
    include_sub_grids: bool = argument(False, "Include Sub Grids")
    no_fixed_seeds: bool = argument(False, "Keep -1 for seeds")
    vary_seeds_x: bool = argument(False, "Vary seeds for X")
    vary_seeds_y: bool = argument(False, "Vary seeds for Y")
    vary_seeds_z: bool = argument(False, "Vary seeds for Z")
    margin_size: int = argument(0, "Grid margins (px)", minimum=0, maximum=500, step=2)
    csv_mode: bool = argument(False, "Use text inputs instead of dropdowns", on_page=True)


@dataclass(frozen=True)
class Ruler:
    """An axis of a plot, with its values."""

    name: str
    """X, Y or Z."""
    axis: Axis
    values: list[Any]
    text: str
    """The values as written in infotext."""
    fixed: bool
    """Whether random seeds were drawn in advance."""
    varies_seeds: bool

    @property
    def legends(self) -> list[list[Legend]]:
        return [[Legend(self.axis.legend(self.axis.label, value))] for value in self.values]

    @property
    def infotext(self) -> dict[str, Any]:
        if self.axis.label == "Nothing":
            return {}
        entries = {f"{self.name} Type": self.axis.label, f"{self.name} Values": self.text}
        if self.fixed:
            entries[f"Fixed {self.name} Values"] = ", ".join(map(str, self.values))
        return entries


Place = tuple[int, int, int]
"""A cell's x, y and z."""


def run(p: StableDiffusionProcessingImg2Img, args: XYZPlot) -> Processed:
    """The grid of all grids; then, if asked for, the grid of each z, and each picture."""
    base = p if args.no_fixed_seeds else seeded(p)
    if not p.standing.return_grid:
        base = base.variant(batch_size=1)
    rulers = [ruler(args, name, p.receipts.draw) for name in "xyz"]
    cells = make_cells(base, rulers)
    p.progress.begin(len(cells) * p.n_iter)
    drawn: dict[Place, Cell] = {}
    error = None
    for place in ordered(rulers):
        try:
            drawn[place] = draw(cells.pop(place), rulers)
        except PalimpsestError as failure:
            error = failure
            p.comments.append(f"{', '.join(labels(rulers, place))} could not be made: {failure}")
        if p.progress.stopped:
            break
    if not drawn:
        raise error
    return result(base, rulers, drawn, args)


@dataclass(frozen=True)
class Cell:
    """One run of a plot."""

    made: Made | None
    """None if it was stopped before there was a picture."""
    by: Processed
    sheet_infotext: str
    """For a grid of x and y that starts with this cell."""
    infotext: str
    """For a grid of all axes that starts with this cell."""


def draw(p: StableDiffusionProcessingImg2Img, rulers: list[Ruler]) -> Cell:
    """Run one cell, which shows the first picture; if there are several, that is their grid."""
    done = process_images(p)
    made = Made(Output(done.images[0], done.infotexts[0], done.paths[0]), done) if done.images else None
    told = replace(p.standing, **{name: getattr(p.options, name) for name in (one.axis.told for one in rulers) if name})
    return Cell(made, done, grid_infotext(p, rulers[:2], told), grid_infotext(p, rulers, told))


def grid_infotext(p: StableDiffusionProcessingImg2Img, rulers: list[Ruler], told: Options) -> str:
    """The infotext of a run's first picture, with the options `told`, and the axes.

    A1111: it is written after the options have been restored, so it lacks those changed by the request or an axis for the runs;
    except the conditioning mask's weight, a field of the run, if an axis varies it.
    """
    record = p.extra_generation_params
    p.iteration, p.seeds, p.subseeds, p.negative_prompts = 0, p.all_seeds, p.all_subseeds, p.all_negative_prompts
    p.extra_generation_params = record | {"Script": "X/Y/Z plot"}
    for one in rulers:
        p.extra_generation_params |= one.infotext
    text = create_infotext(p, 0, told)
    p.extra_generation_params = record
    return text


def ruler(args: XYZPlot, name: str, draw: Callable[[], int] = random_seed) -> Ruler:
    axis = find_axis(getattr(args, f"{name}_type"))
    values, text = parse_values(axis, getattr(args, f"{name}_values"), getattr(args, f"{name}_values_dropdown"),
                                as_text=args.csv_mode)
    fixed = axis.label in SEEDS and not args.no_fixed_seeds
    if fixed:
        values = [draw() if value == -1 else value for value in values]
    return Ruler(name.upper(), axis, values, text, fixed, getattr(args, f"vary_seeds_{name}"))


def make_cells(p: StableDiffusionProcessingImg2Img, rulers: list[Ruler]) -> dict[Place, StableDiffusionProcessingImg2Img]:
    """Each cell's request. Raises InvalidRequest, before anything runs, if one is invalid."""
    counts = [len(ruler.values) for ruler in rulers]
    cells = math.prod(counts)
    megapixels = round(cells * p.width * p.height / 1e6)
    if cells > MAX_CELLS or megapixels >= MAX_MEGAPIXELS:
        raise InvalidRequest("script_args", f"script_args: a plot of {' x '.join(map(str, counts))} pictures is too large; at "
                                            f"most {MAX_CELLS} of less than {MAX_MEGAPIXELS} megapixels in total are allowed")
    requests = {}
    for place in product(*map(range, counts)):
        cell, stride, offset = p, 1, 0
        for ruler, index in zip(rulers, place):
            value = ruler.values[index]
            cell = cell.variant(**ruler.axis.apply(cell, value, ruler.values))
            if ruler.varies_seeds:
                offset, stride = offset + index * stride, stride * len(ruler.values)
        requests[place] = cell.variant(seed=cell.seed + offset) if offset and cell.seed != -1 else cell
    return requests


def ordered(rulers: list[Ruler]) -> Iterator[Place]:
    """All places, with expensive axes outermost; among equal ones z, then y."""
    outer = sorted(reversed(range(3)), key=lambda index: -rulers[index].axis.cost)
    for indices in product(*(range(len(rulers[index].values)) for index in outer)):
        by_axis = dict(zip(outer, indices))
        yield by_axis[0], by_axis[1], by_axis[2]


def labels(rulers: list[Ruler], place: Place) -> list[str]:
    return [text for ruler, index in zip(rulers, place) if (text := ruler.legends[index][0].text)]


# --- the result -----------------------------------------------------------------------------------------------------

def result(p: StableDiffusionProcessingImg2Img, rulers: list[Ruler], drawn: dict[Place, Cell], args: XYZPlot) -> Processed:
    """The requested grids and pictures. Cells that were not run are black."""
    x, y, z = rulers
    first = next(iter(drawn.values()))
    images = {place: cell.made.output.image for place, cell in drawn.items() if cell.made}
    if not images:
        return collect(p, [], first.by)
    if args.draw_legend:
        p.comments += unreadable((legend for ruler in rulers for legend in ruler.legends), p.standing)
    empty = Image.new("RGB", next(iter(images.values())).size)
    sheets = []
    for level in range(len(z.values)):
        cells = [images.get((column, row, level), empty) for row in range(len(y.values)) for column in range(len(x.values))]
        sheets.append(table(cells, y.legends, x.legends, args, args.margin_size, p.standing))
    begin = drawn.get((0, 0, 0), first)
    grids = [Made(keep_grid(p, table(sheets, [[Legend()]], z.legends, args, 0, p.standing), begin.infotext, "xyz_grid"), begin.by)]
    if args.include_sub_grids:
        for level, sheet in enumerate(sheets):
            head = drawn.get((0, 0, level), first)
            folder = p.outpath_grids if len(sheets) > 1 else None  # otherwise it is the saved grid itself
            grids.append(Made(keep_grid(p.variant(outpath_grids=folder), sheet, head.sheet_infotext, "xyz_grid"), head.by))
    listed = [drawn[place].made for place in sorted(images, key=lambda place: place[::-1])] if args.include_lone_images else []
    return replace(collect(p, grids + listed, first.by), index_of_first_image=len(grids) if listed else 0)


def table(images: list[Image.Image], rows: list[list[Legend]], columns: list[list[Legend]], args: XYZPlot, margin: int,
          options: Options) -> Image.Image:
    """The pictures as a grid, with legends if asked for."""
    grid = image_grid(images, len(rows), options.grid_background_color)
    if not args.draw_legend:
        return grid
    cell = Size(max(image.width for image in images), max(image.height for image in images))
    return annotate(grid, cell, columns, rows, margin, options)
