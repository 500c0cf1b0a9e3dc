"""Fonts for grid legends: the option's, our own, and the system's for characters these two lack."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont

from pipeline.errors import InvalidRequest

FONT = Path(__file__).parents[1] / "assets" / "fonts" / "Roboto-Regular.ttf"
SYSTEM_FONTS = tuple(map(Path, (  # fonts with Chinese, Japanese and Korean first, then with other scripts
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-sans-cjk-fonts/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-sans-cjk-vf-fonts/NotoSansCJK-VF.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/System/Library/Fonts/Hiragino Sans GB.ttc",
    "/System/Library/Fonts/ヒラギノ角ゴシック W3.ttc",
    "/System/Library/Fonts/PingFang.ttc",
    "/System/Library/Fonts/AppleSDGothicNeo.ttc",
    "/System/Library/Fonts/Supplemental/Arial Unicode.ttf",
    "/Library/Fonts/Arial Unicode.ttf",
    "C:/Windows/Fonts/msyh.ttc",
    "C:/Windows/Fonts/YuGothM.ttc",
    "C:/Windows/Fonts/msgothic.ttc",
    "C:/Windows/Fonts/malgun.ttf",
    "C:/Windows/Fonts/simsun.ttc",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "C:/Windows/Fonts/seguisym.ttf",
)))
ENDINGS = (".ttf", ".ttc", ".otf", ".otc")
NO_GLYPH = "\U0010ffff"
"""A character that no font has, drawn as the font's missing-glyph box."""


def font_name(name: str, value: Any) -> str:
    """`value` as a usable font, or "" for our own. Raises InvalidRequest naming the field."""
    if value in (None, ""):
        return ""
    if not isinstance(value, str) or named_font(value) is None:
        # one message for every cause, so that it never reveals which files exist
        raise InvalidRequest(name, f"{name} must be the path of a font file ({', '.join(ENDINGS)}) or the name of one that the "
                                   f"system has, such as DejaVuSans.ttf, got {str(value)[:200]!r}")
    return value


def named_font(name: str) -> Path | None:
    """A font's file, by path or by name among the system's fonts; None if it cannot be used."""
    path = Path(name)
    elsewhere = name.startswith(("//", "\\\\"))  # a network path
    if path.suffix.lower() not in ENDINGS or elsewhere or not name.isprintable():
        return None
    try:
        if path.exists() and not path.is_file():  # reading a pipe would block
            return None
        return Path(str(load_font(20, path).path))
    except (OSError, ValueError):
        return None


def load_font(size: int, file: Path = FONT) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


def fonts_for(chosen: str) -> tuple[Path, ...]:
    """The fonts to try, best first. chosen: the option's value."""
    named = named_font(chosen) if chosen else None
    return (FONT, *SYSTEM_FONTS) if named is None else (named, FONT, *SYSTEM_FONTS)


def font_file(text: str, files: tuple[Path, ...] = (FONT, *SYSTEM_FONTS)) -> Path | None:
    """The first of these fonts that has every character of a text, or None."""
    return next((file for file in files if file.is_file() and not lacking(text, file)), None)


@lru_cache(1024)
def lacking(text: str, file: Path = FONT) -> str:
    """The characters of a text that a font has no glyph for; all of them if the font cannot be read."""
    try:
        font = load_font(20, file)
    except OSError:
        return text
    box = drawn(font, NO_GLYPH)
    return "".join(character for character in dict.fromkeys(text) if not character.isspace() and drawn(font, character) == box)


def drawn(font: ImageFont.FreeTypeFont, character: str) -> tuple:
    mask = font.getmask(character)
    return mask.size, bytes(mask)
