"""Captions: what a person would type to get a scene, in many words and orders, often only a part of it."""
from __future__ import annotations

from random import Random

from tools.demo_model.scenes import FLYING, Scene, Thing
from tools.demo_model.words import (
    BEFORE_PLACE, CLOTHED, COLOUR_WORDS, FILLERS, LOOKS, PLACE_WORDS, PLURAL, SEASON_WORDS, SIZE_WORDS, SKY_WORDS,
    SPOT_WORDS, STYLE_WORDS, THING_WORDS, TIME_WORDS, WEATHER_WORDS)

INLINE = ("at", "in", "by", "under", "with", "during", "covered", "late", "on")


def common_first(words: tuple[str, ...], random: Random) -> str:
    """One of the words; the first is about as likely as the next two together."""
    return random.choices(words, [1 / (n + 1) ** 0.7 for n in range(len(words))])[0]


def with_article(words: str, random: Random, *, definite: float = 0.0) -> str:
    if words.split()[-1] in PLURAL:
        return "the " + words if random.random() < 0.3 else words
    if random.random() < definite:
        return "the " + words
    return ("an " if words[0] in "aeio8" or words.startswith("um") else "a ") + words


def paint_word(words: str, colour: str) -> str:
    """'old car' and 'red' make 'old red car'."""
    first, _, rest = words.partition(" ")
    return f"{first} {colour} {rest}" if first in LOOKS else f"{colour} {words}"


def thing_phrase(thing: Thing, random: Random) -> str:
    """Such as 'a big red house on the left'."""
    words = common_first(THING_WORDS[thing.kind], random)
    coloured = random.random() < (0.45 if thing.kind in ("tree", "snowman", "castle") else 0.82)
    colour = common_first(COLOUR_WORDS[thing.colour], random)
    if thing.kind == "person" and coloured:
        words = random.choice(CLOTHED).format(person=words, colour=colour).replace(" a orange", " an orange")
    elif coloured:
        words = paint_word(words, colour)
    if random.random() < 0.15:
        words = f"{random.choice(SIZE_WORDS[thing.size])} {words}"
    phrase = with_article(words, random)
    return f"{phrase} {random.choice(SPOT_WORDS[thing.spot])}" if random.random() < 0.16 else phrase


def place_phrase(scene: Scene, random: Random, *, alone: bool) -> str:
    words = common_first(PLACE_WORDS[scene.place], random)
    if alone:
        return with_article(words, random, definite=0.2)
    before = random.choice(BEFORE_PLACE[scene.place])
    kind = scene.main.kind
    if kind == "boat":
        before = "on"
        words = random.choice(("sea", "ocean", "water") if scene.place == "sea" else ("lake", "water", "calm lake"))
    elif kind in FLYING and random.random() < 0.6:
        before = random.choice(("over", "above", "flying over"))
    elif "city" in words.split()[-1] or "town" in words.split()[-1] or words == "hamlet":
        before = "in"
    definite = 0.9 if words in ("sea", "ocean", "water", "beach", "coast") else 0.35
    return f"{before} {with_article(words, random, definite=definite)}"


def extras(scene: Scene, random: Random) -> list[str]:
    """Time, season, weather and sky, each said only sometimes; the usual is said more rarely."""
    said = []
    if random.random() < (0.35 if scene.time == "day" else 0.88):
        said.append(common_first(TIME_WORDS[scene.time], random))
    if scene.place not in ("sea", "desert") and (scene.place != "city" or scene.season == "winter"):
        if random.random() < (0.25 if scene.season == "summer" else 0.78):
            said.append(common_first(SEASON_WORDS[scene.season], random))
    often = 0.88 if scene.weather != "clear" else 0.14 if scene.time == "day" else 0.0
    if random.random() < often:
        said.append(common_first(WEATHER_WORDS[scene.weather], random))
    if scene.sky_body in SKY_WORDS and random.random() < 0.4:
        said.append(common_first(SKY_WORDS[scene.sky_body], random))
    return said


def beside(other: Thing, main: Thing, random: Random) -> str:
    """The second thing, where it stands as seen from the main one."""
    phrase = thing_phrase(Thing(other.kind, other.colour, other.spot, other.size), random)
    order = ("left", "middle", "right")
    if random.random() < 0.4:
        side = "left" if order.index(other.spot) < order.index(main.spot) else "right"
        return random.choice((f"{phrase} to the {side} of it", f"{phrase} on its {side}", f"{phrase} {side} of it"))
    return phrase


def subject_of(scene: Scene, random: Random) -> str:
    if not scene.main:
        return place_phrase(scene, random, alone=True)
    main = thing_phrase(scene.main, random)
    if len(scene.things) > 1 and random.random() < 0.75:
        joint = random.choice((" and ", " with ", " next to ", " beside ", " and "))
        main += joint + beside(scene.things[0], scene.main, random)
    roll = random.random()
    if roll < 0.08:
        return main
    if roll < 0.20:
        return f"{place_phrase(scene, random, alone=True)} with {main}"
    if roll < 0.28:
        return f"{main}, {common_first(PLACE_WORDS[scene.place], random)}"
    return f"{main} {place_phrase(scene, random, alone=False)}"


def tags(scene: Scene, random: Random) -> str:
    """Bare words in any order, as people type them for image models."""
    words = [common_first(PLACE_WORDS[scene.place], random), *extras(scene, random)]
    for thing in scene.things:
        colour = common_first(COLOUR_WORDS[thing.colour], random)
        words.append(paint_word(common_first(THING_WORDS[thing.kind], random), colour))
    if random.random() < (0.30 if scene.style == "flat" else 0.92):
        words.append(common_first(STYLE_WORDS[scene.style], random))
    random.shuffle(words)
    return ", ".join(words)


def caption(scene: Scene, random: Random) -> str:
    """One caption of a scene, lower-case."""
    if random.random() < 0.15:
        parts = [tags(scene, random)]
    else:
        said, subject = extras(scene, random), subject_of(scene, random)
        random.shuffle(said)
        inline = [words for words in said if words.split()[0] in INLINE]
        if inline and random.random() < 0.75:
            subject = f"{subject} {inline[0]}"
            said.remove(inline[0])
        if random.random() < 0.1 and said:
            subject = f"{said.pop()} {subject}"
        parts = [subject, *said]
        style = common_first(STYLE_WORDS[scene.style], random)
        if random.random() < (0.30 if scene.style == "flat" else 0.92):
            if random.random() < 0.55:
                parts[0] = f"{with_article(style, random)} of {subject}"
            else:
                parts.insert(random.choice((0, len(parts), len(parts))), style)
    if random.random() < 0.15:
        parts.insert(random.choice((0, len(parts), len(parts))), random.choice(FILLERS))
    if random.random() < 0.06:
        parts.append(random.choice(FILLERS))
    return (" " if random.random() < 0.04 else ", ").join(parts)
