"""Captions: what a person would type to get a scene. Many ways to say the same, often saying only a part."""
from __future__ import annotations

from random import Random

from tools.demo_model.scenes import (
    COLOURS, PLACES, SEASONS, SIZES, SKY_BODIES, SPOTS, STYLES, THINGS, TIMES, WEATHERS, Scenes)

PLACE_WORDS = {
    "forest": ("forest", "woods", "pine forest", "forest", "woodland"),
    "mountains": ("mountains", "mountain landscape", "mountain valley", "mountain range", "alps"),
    "sea": ("sea", "ocean", "beach", "coast", "sea shore", "seaside"),
    "desert": ("desert", "sand dunes", "sandy desert", "desert", "desert with cacti"),
    "meadow": ("meadow", "green field", "grassy hills", "meadow", "countryside", "field of flowers"),
    "city": ("city street", "city", "street", "town", "downtown street", "road in a city"),
}
ARTICLE_FREE = {"mountains", "sand dunes", "grassy hills", "alps", "woods"}
BEFORE_PLACE = {"forest": "in", "mountains": "in", "sea": "by", "desert": "in", "meadow": "in", "city": "on"}
TIME_WORDS = {
    "day": ("during the day", "at noon", "in daylight", "at day", "daytime"),
    "evening": ("at sunset", "in the evening", "at sunset", "at dusk", "golden hour"),
    "night": ("at night", "at night", "by night", "at midnight", "nighttime"),
    "dawn": ("at dawn", "at sunrise", "in the early morning", "in the morning"),
}
SEASON_WORDS = {
    "summer": ("in summer", "summer", "in the summer"),
    "autumn": ("in autumn", "autumn", "in fall", "with autumn leaves"),
    "winter": ("in winter", "winter", "covered in snow", "snowy", "in the snow"),
    "spring": ("in spring", "spring", "in springtime"),
}
WEATHER_WORDS = {
    "clear": ("clear sky", "blue sky", "sunny", "good weather"),
    "cloudy": ("cloudy", "cloudy sky", "under grey clouds", "overcast"),
    "rain": ("rain", "in the rain", "rainy", "raining", "heavy rain"),
    "snow": ("snowfall", "snowing", "falling snow", "snow"),
    "fog": ("fog", "in the fog", "foggy", "misty", "mist"),
}
SKY_WORDS = {
    "sun": ("sun in the sky", "bright sun", "with the sun", "sun"),
    "moon": ("moon", "under the moon", "moonlight", "with a moon"),
    "stars": ("stars", "starry sky", "under the stars", "stars in the sky"),
}
THING_WORDS = {
    "house": ("house", "cottage", "house", "small house", "cabin", "home"),
    "tree": ("tree", "tree", "big tree"),
    "boat": ("boat", "sailboat", "sailing boat", "boat", "ship"),
    "car": ("car", "sports car", "car", "sports car", "automobile"),
    "balloon": ("balloon", "hot air balloon", "balloon", "hot-air balloon"),
    "tower": ("tower", "lighthouse", "tower", "lighthouse"),
    "person": ("person", "figure", "man", "woman", "person standing", "person"),
    "fence": ("fence", "wooden fence", "picket fence", "fence"),
}
CLOTHED = ("person in a {} coat", "person in {}", "person wearing a {} coat", "figure in a {} dress",
           "man in a {} coat", "woman in a {} dress")
SPOT_WORDS = {
    "left": ("on the left", "at the left", "on the left side"),
    "middle": ("in the middle", "in the center", "centered"),
    "right": ("on the right", "at the right", "on the right side"),
}
STYLE_WORDS = {
    "flat": ("flat illustration", "illustration", "vector art", "picture", "photo", "drawing", "flat design"),
    "watercolor": ("watercolor painting", "watercolor", "watercolour", "aquarelle", "watercolor"),
    "ink": ("ink sketch", "ink drawing", "sketch", "pen and ink drawing", "black and white sketch"),
    "pixel": ("pixel art", "8-bit pixel art", "pixel art", "pixelated picture"),
    "oil": ("oil painting", "oil painting", "painting in oil", "impressionist painting", "oil on canvas"),
}


def with_article(words: str, random: Random, *, definite: float = 0.0) -> str:
    if words in ARTICLE_FREE or words.endswith("s") and words.split()[-1] in ("hills", "dunes", "mountains"):
        return "the " + words if random.random() < 0.3 else words
    if random.random() < definite:
        return "the " + words
    return ("an " if words[0] in "aeiou" else "a ") + words


def thing_phrase(scene: dict[str, str], random: Random) -> str:
    """Such as 'a big red house on the left'."""
    coloured = random.random() < (0.45 if scene["thing"] == "tree" else 0.85)
    if scene["thing"] == "person" and coloured:
        words = random.choice(CLOTHED).format(scene["colour"]).replace(" a orange", " an orange")
    else:
        words = random.choice(THING_WORDS[scene["thing"]])
        words = f"{scene['colour']} {words}" if coloured else words
    if random.random() < 0.12:
        words = f"{random.choice(('large', 'big') if scene['size'] == 'big' else ('small', 'little'))} {words}"
    phrase = with_article(words, random)
    return f"{phrase} {random.choice(SPOT_WORDS[scene['spot']])}" if random.random() < 0.18 else phrase


def place_phrase(scene: dict[str, str], random: Random, *, alone: bool) -> str:
    words = random.choice(PLACE_WORDS[scene["place"]])
    if alone:
        return with_article(words, random, definite=0.2)
    before = BEFORE_PLACE[scene["place"]]
    if scene["thing"] == "boat":
        before, words = "on", random.choice(("sea", "ocean", "water"))
    if words in ("town", "city") or "city" in words and "street" not in words:
        before = "in"
    return f"{before} {with_article(words, random, definite=0.35 if scene['place'] != 'sea' else 0.9)}"


def extras(scene: dict[str, str], random: Random) -> list[str]:
    """Time, season, weather and sky, each said only sometimes; the usual is said more rarely."""
    said = []
    if random.random() < (0.35 if scene["time"] == "day" else 0.88):
        said.append(random.choice(TIME_WORDS[scene["time"]]))
    if scene["place"] not in ("sea", "desert") and (scene["place"] != "city" or scene["season"] == "winter"):
        if random.random() < (0.25 if scene["season"] == "summer" else 0.75):
            said.append(random.choice(SEASON_WORDS[scene["season"]]))
    if random.random() < (0.12 if scene["weather"] == "clear" else 0.85):
        if scene["weather"] != "clear" or scene["time"] == "day":
            said.append(random.choice(WEATHER_WORDS[scene["weather"]]))
    if scene["sky_body"] in SKY_WORDS and random.random() < 0.4:
        said.append(random.choice(SKY_WORDS[scene["sky_body"]]))
    return said


def caption(scene: dict[str, str], random: Random) -> str:
    """One caption of a scene given in words, lower-case."""
    said = extras(scene, random)
    random.shuffle(said)
    if scene["thing"] == "none":
        subject = place_phrase(scene, random, alone=True)
    elif random.random() < 0.08:
        subject = thing_phrase(scene, random)
    elif random.random() < 0.15:
        subject = f"{place_phrase(scene, random, alone=True)} with {thing_phrase(scene, random)}"
    else:
        subject = f"{thing_phrase(scene, random)} {place_phrase(scene, random, alone=False)}"
    inline = [words for words in said if words.split()[0] in ("at", "in", "by", "under", "with", "during", "covered")]
    if inline and random.random() < 0.75:
        subject = f"{subject} {inline[0]}"
        said.remove(inline[0])
    if random.random() < 0.1 and said:
        subject = f"{said.pop()} {subject}"
    parts = [subject, *said]
    style = random.choice(STYLE_WORDS[scene["style"]])
    if random.random() < (0.30 if scene["style"] == "flat" else 0.92):
        if random.random() < 0.55:
            parts[0] = f"{with_article(style, random)} of {subject}"
        else:
            parts.insert(random.choice((0, len(parts), len(parts))), style)
    return ", ".join(parts)


def in_words(scenes: Scenes) -> list[dict[str, str]]:
    """Each scene of a batch as words."""
    lists = dict(place=PLACES, time=TIMES, season=SEASONS, weather=WEATHERS, sky_body=SKY_BODIES, thing=THINGS,
                 colour=COLOURS, spot=SPOTS, size=SIZES, style=STYLES)
    columns = {key: getattr(scenes, key).tolist() for key in lists}
    return [{key: lists[key][columns[key][n]] for key in lists} for n in range(len(scenes))]
