"""Legends around a grid of pictures: what its columns and rows stand for."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from pipeline.fonts import FONT, font_file, fonts_for, lacking, load_font
from pipeline.geometry import Size
from pipeline.options import Options

STRIKE_WIDTH = 4
MAX_LOST = 20
"""Characters that a sentence lists."""


@dataclass(frozen=True)
class Legend:
    """A part of a column's or row's label."""

    text: str = ""
    active: bool = True
    """False: shown struck through."""


@dataclass(frozen=True)
class Line:
    """One line of a legend as it is drawn."""

    text: str
    active: bool
    size: Size
    """Of its ink, in pixels, before it is shrunk."""
    file: Path = FONT
    """The font that has its characters."""


def annotate(grid: Image.Image, cell: Size, columns: list[list[Legend]], rows: list[list[Legend]],
             margin: int = 0, options: Options = Options()) -> Image.Image:
    """The grid with `margin` pixels between its equal cells, and a legend above each column and beside each row.

    Without any text, no room is made for legends. A1111: except a strip of half a line if a column has no legend at all.
    """
    size = max((cell.width + cell.height) // 25, 1)
    spacing = size // 2
    left = cell.width * 3 // 4 if any(legend.text for legends in rows for legend in legends) else 0
    fonts = fonts_for(options.font)
    above = [wrapped(legends, cell.width, size, fonts) for legends in columns]
    beside = [wrapped(legends, left, size, fonts) for legends in rows]
    heights = [sum(line.size.height + spacing for line in lines) - spacing for lines in above]
    top = max(heights) + 2 * spacing if sum(heights) else 0
    sheet, places = spaced(grid, cell, left, top, margin, options.grid_background_color)
    draw = ImageDraw.Draw(sheet)
    for x, lines, height in zip(sorted({x for x, _ in places}), above, heights):
        draw_lines(draw, x + cell.width / 2, top / 2 - height / 2, lines, size, cell.width, options)
    for y, lines in zip(sorted({y for _, y in places}), beside):
        # A1111: the spaces between lines are not counted
        height = sum(line.size.height for line in lines)
        draw_lines(draw, left / 2, y + cell.height / 2 - height / 2, lines, size, left, options)
    return sheet


def spaced(grid: Image.Image, cell: Size, left: int, top: int, margin: int,
           background: str) -> tuple[Image.Image, list[tuple[int, int]]]:
    """(a sheet with the cells, leaving room at the left, at the top and between them; where each cell lies)."""
    columns, rows = grid.width // cell.width, grid.height // cell.height
    sheet = Image.new("RGB", (grid.width + left + margin * (columns - 1), grid.height + top + margin * (rows - 1)), background)
    places = []
    for row in range(rows):
        for column in range(columns):
            x, y = cell.width * column, cell.height * row
            place = left + x + margin * column, top + y + margin * row
            sheet.paste(grid.crop((x, y, x + cell.width, y + cell.height)), place)
            places.append(place)
    return sheet, places


def unreadable(legends: Iterable[list[Legend]], options: Options = Options()) -> list[str]:
    """A sentence on the legends' characters that no installed font has."""
    fonts = fonts_for(options.font)
    texts = [legend.text for group in legends for legend in group if font_file(legend.text, fonts) is None]
    lost = "".join(dict.fromkeys("".join(lacking(text, fonts[0]) for text in texts)))[:MAX_LOST]
    return [f'Legends of the grid show boxes for "{lost}", as no font with these characters was found; the option '
            "font can name one, such as Noto Sans CJK."] if lost else []


def wrapped(legends: list[Legend], width: int, size: int, fonts: tuple[Path, ...]) -> list[Line]:
    """The legends' words in lines of at most `width` pixels, unless a single word is wider.

    fonts: to try, best first.
    """
    lines = []
    for legend in legends:
        file = font_file(legend.text, fonts) or fonts[0]
        font = load_font(size, file)
        texts = [""]
        for word in legend.text.split():
            longer = f"{texts[-1]} {word}".strip()
            if font.getlength(longer) <= width:
                texts[-1] = longer
            else:
                texts.append(word)
        for text in texts:
            x1, y1, x2, y2 = font.getbbox(text)
            lines.append(Line(text, legend.active, Size(int(x2 - x1), int(y2 - y1)), file))
    return lines


def draw_lines(draw: ImageDraw.ImageDraw, x: float, y: float, lines: list[Line], size: int, width: int,
               options: Options) -> None:
    """Draw the lines centred on x from y downwards, each shrunk until it is at most `width` wide."""
    for line in lines:
        fitting = (load_font(smaller, line.file) for smaller in range(size, 0, -1))
        font = next((font for font in fitting if font.getbbox(line.text)[2] <= width), load_font(1, line.file))
        color = options.grid_text_active_color if line.active else options.grid_text_inactive_color
        draw.text((x, y + line.size.height / 2), line.text, font=font, fill=color, anchor="mm")
        if not line.active:
            middle, half = y + line.size.height // 2, line.size.width // 2
            draw.line((x - half, middle, x + half, middle), fill=color, width=STRIKE_WIDTH)
        y += line.size.height + size // 2
