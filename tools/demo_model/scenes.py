"""The vocabulary of scenes, and random scenes."""
from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random

PLACES = ("forest", "mountains", "sea", "desert", "meadow", "city", "lake", "village")
TIMES = ("day", "evening", "night", "dawn")
SEASONS = ("summer", "autumn", "winter", "spring")
WEATHERS = ("clear", "cloudy", "rain", "snow", "fog")
SKY_BODIES = ("none", "sun", "moon", "stars")
THINGS = ("none", "house", "tree", "boat", "car", "balloon", "tower", "person", "fence", "castle", "windmill", "cat",
          "dog", "horse", "tent", "bus", "bird", "airplane", "snowman")
COLOURS = ("red", "blue", "yellow", "green", "white", "orange", "purple", "black", "pink", "brown")
SPOTS = ("left", "middle", "right")
SIZES = ("small", "big")
STYLES = ("flat", "watercolor", "ink", "pixel", "oil")

# How frequent each thing is in each place, in the order of THINGS.
THING_ODDS = {
    "forest": (4, 4, 2, 0, 3, 2, 2, 4, 1.5, 1, 0.3, 1.5, 1.5, 2, 2, 0.7, 1, 0.5, 0.3),
    "mountains": (4, 4, 2.5, 0, 3, 4, 1.5, 3, 1.5, 3, 0.8, 0.7, 1, 2, 2, 1, 1.5, 1.5, 0.3),
    "sea": (4, 2, 1, 7, 1, 2.5, 4, 2, 0.7, 1, 0.3, 0.8, 1, 0.7, 0.7, 0.4, 2, 1.5, 0),
    "desert": (4, 2.5, 1.5, 0, 4, 3, 1.5, 3, 0.7, 1.5, 0.3, 0.8, 0.8, 2, 1.5, 1, 1, 1.5, 0),
    "meadow": (3, 4, 4, 0, 2.5, 4, 1, 3, 3, 2, 3, 2, 2.5, 3, 2, 0.7, 1, 1.5, 0.3),
    "city": (4, 0.7, 1.5, 0, 7, 2, 0.3, 4, 0.7, 0, 0, 2, 2, 0.7, 0, 4, 1, 1.5, 0.3),
    "lake": (4, 3, 2, 6, 1, 2.5, 1.5, 2, 0.7, 2, 0.7, 0.7, 1, 1, 2, 0.4, 1.5, 1, 0.2),
    "village": (4, 0.5, 2, 0, 4, 2.5, 0.7, 4, 1.5, 1, 2, 2, 2, 2, 0.3, 2, 1, 1, 0.5)}
FLYING = ("balloon", "bird", "airplane")
# A thing's usual colours, unless it may have any.
NATURAL = {"cat": ("orange", "black", "white", "brown"), "dog": ("brown", "black", "white", "orange"),
           "horse": ("brown", "black", "white"), "bird": ("white", "black", "blue", "red"), "snowman": ("white",),
           "castle": ("white", "brown", "red"), "airplane": ("white", "red", "blue", "yellow")}
STYLE_ODDS = (5, 1.6, 0.8, 1, 1.6)


@dataclass(frozen=True)
class Thing:
    """A thing in a scene, in words from the lists above."""

    kind: str
    colour: str = "red"
    spot: str = "middle"
    size: str = "big"


@dataclass(frozen=True)
class Scene:
    """A scene, in words from the lists above. `things` are ordered from far to near.

    The seed decides whatever the words leave open: with the same seed and place the composition stays, whatever the hour.
    """

    place: str
    time: str = "day"
    season: str = "summer"
    weather: str = "clear"
    sky_body: str = "none"
    style: str = "flat"
    things: tuple[Thing, ...] = ()
    seed: int = 0

    def lot(self, what: str) -> Random:
        """A random source for `what` in this scene only, so that drawing more of one thing does not move others."""
        return Random(f"{self.seed} {what}")

    @property
    def horizon(self) -> float:
        """Height of the horizon, in units (256 per picture) from the top."""
        return self.lot("horizon").uniform(134, 156)

    @property
    def main(self) -> Thing | None:
        """The nearest thing, which a caption names first."""
        return self.things[-1] if self.things else None


def sample_thing(place: str, season: str, random: Random) -> Thing | None:
    kind = random.choices(THINGS, THING_ODDS[place])[0]
    if kind == "none":
        return None
    colour = random.choices(COLOURS, (3, 2.5, 2, 1.5, 2, 1.5, 1.5, 1.2, 1, 1))[0]
    if kind in NATURAL and random.random() < 0.8:
        colour = random.choice(NATURAL[kind])
    if kind == "tree" and random.random() < 0.75:
        colour = dict(summer="green", autumn=random.choice(("orange", "red", "yellow")), winter="white",
                      spring=random.choice(("green", "pink", "white")))[season]
    return Thing(kind, colour, random.choice(SPOTS), random.choices(SIZES, (1, 1.5))[0])


def sample_scene(random: Random) -> Scene:
    """A random scene, from likely combinations only."""
    place = random.choice(PLACES)
    time = random.choices(TIMES, (4, 2.5, 3, 1.7))[0]
    season = random.choices(SEASONS, (4, 2, 3, 2))[0]
    weather = random.choices(WEATHERS, (6, 2, 1.3, 1.3, 1.2))[0]
    if place in ("desert", "sea"):
        season, weather = "summer", "clear" if weather == "snow" else weather
    if weather == "snow":
        season = "winter"
    body = random.choices(("moon", "stars"), (3, 2))[0] if time == "night" else random.choices(("none", "sun"),
            (1, 3))[0]
    if weather != "clear":
        body = "none"
    main = sample_thing(place, season, random)
    things = (main,) if main else ()
    if main and random.random() < 0.35:  # a second one, somewhere else
        other = sample_thing(place, season, random)
        if other and other.kind != main.kind and other.spot != main.spot:
            things = (other, main)
    if any(thing.kind == "snowman" for thing in things):
        season = "winter"
    return Scene(place, time, season, weather, body, random.choices(STYLES, STYLE_ODDS)[0], things,
                 random.getrandbits(30))


def sample_scenes(count: int, seed: int, *, first: int = 0) -> list[Scene]:
    """Scenes from number `first` on, of the endless sequence of a seed."""
    return [sample_scene(Random(f"{seed}/{n}")) for n in range(first, first + count)]


def scene(seed: int = 0, **names: str) -> Scene:
    """A scene from words, such as `scene(place="sea", thing="boat", colour="red")`; everything else is default."""
    own = {f.name for f in fields(Thing)}
    thing = names.pop("thing", "none")
    looks = {key: names.pop(key) for key in list(names) if key in own}
    return Scene(things=() if thing == "none" else (Thing(thing, **looks),), seed=seed, **names)
