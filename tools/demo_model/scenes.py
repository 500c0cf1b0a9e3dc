"""What a scene can be, and how scenes are drawn by lot."""
from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

PLACES = ("forest", "mountains", "sea", "desert", "meadow", "city")
TIMES = ("day", "evening", "night", "dawn")
SEASONS = ("summer", "autumn", "winter", "spring")
WEATHERS = ("clear", "cloudy", "rain", "snow", "fog")
SKY_BODIES = ("none", "sun", "moon", "stars")
THINGS = ("none", "house", "tree", "boat", "car", "balloon", "tower", "person", "fence")
COLOURS = ("red", "blue", "yellow", "green", "white", "orange", "purple", "black")
SPOTS = ("left", "middle", "right")
SIZES = ("small", "big")
STYLES = ("flat", "watercolor", "ink", "pixel", "oil")

# How often each thing stands in each place, in the order of THINGS.
THING_ODDS = {
    "forest": (3, 4, 2, 0, 3, 2, 2, 4, 2),
    "mountains": (3, 4, 3, 0, 3, 4, 2, 3, 2),
    "sea": (3, 2, 1, 6, 1, 2, 4, 2, 1),
    "desert": (3, 3, 2, 0, 4, 3, 2, 3, 1),
    "meadow": (2, 4, 4, 0, 3, 4, 2, 3, 3),
    "city": (3, 2, 2, 0, 6, 2, 1, 4, 1),
}
# How often each style is drawn.
STYLE_ODDS = (6, 1.5, 0.5, 1, 1.3)


@dataclass
class Scenes:
    """A batch of scenes: every field is an int64 tensor (B,) of places in the lists above."""

    place: Tensor
    time: Tensor
    season: Tensor
    weather: Tensor
    sky_body: Tensor
    thing: Tensor
    colour: Tensor
    spot: Tensor
    size: Tensor
    style: Tensor
    seed: Tensor

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, index) -> "Scenes":
        return Scenes(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device) -> "Scenes":
        return Scenes(*(getattr(self, f.name).to(device) for f in fields(self)))

    def table(self) -> Tensor:
        """All fields as one (B, 11) tensor, as the bank stores them."""
        return torch.stack([getattr(self, f.name) for f in fields(self)], 1)

    @staticmethod
    def from_table(table: Tensor) -> "Scenes":
        return Scenes(*table.long().unbind(1))


def worth_learning(scenes: Scenes) -> Tensor:
    """The rows of a bank whose style is still drawn: a bank may be older than the odds."""
    return torch.tensor(STYLE_ODDS)[scenes.style].nonzero()[:, 0]


def lots(odds: Tensor, random: torch.Generator) -> Tensor:
    """One index for each row of odds (B, N): (B,)."""
    return torch.multinomial(odds.float(), 1, replacement=True, generator=random)[:, 0]


def sample_scenes(count: int, seed: int) -> Scenes:
    """`count` scenes by lot; the same for the same seed, and only likely combinations."""
    random = torch.Generator().manual_seed(seed)

    def among(*odds: float) -> Tensor:
        return lots(torch.tensor(odds).expand(count, -1), random)

    place, time = among(*[1] * 6), among(4, 2.5, 3, 1.5)
    season = among(4, 2, 3, 2)
    weather = among(6, 2, 1.3, 1.3, 1.2)
    season[weather == WEATHERS.index("snow")] = SEASONS.index("winter")
    timeless = (place == PLACES.index("desert")) | (place == PLACES.index("sea"))
    season[timeless] = SEASONS.index("summer")
    weather[timeless & (weather == WEATHERS.index("snow"))] = WEATHERS.index("clear")

    odds = torch.tensor([THING_ODDS[name] for name in PLACES])[place]
    thing, colour = lots(odds, random), among(3, 2.5, 2, 1.5, 2, 1.5, 1.5, 1)
    grown = torch.tensor([COLOURS.index(c) for c in ("green", "orange", "white", "green")])[season]
    natural = (thing == THINGS.index("tree")) & (torch.rand(count, generator=random) < 0.7)
    colour = torch.where(natural, grown, colour)

    night = time == TIMES.index("night")
    body = torch.where(night, 2 + among(3, 2), among(1, 3))
    body[weather >= WEATHERS.index("cloudy")] = 0
    return Scenes(place, time, season, weather, body, thing, colour, among(1, 1, 1), among(1, 1.4),
                  among(*STYLE_ODDS), torch.randint(1 << 30, (count,), generator=random))


def scene(seed: int = 0, **names: str) -> Scenes:
    """One scene from words, such as `scene(place="sea", time="night")`; the rest is plain."""
    lists = dict(place=PLACES, time=TIMES, season=SEASONS, weather=WEATHERS, sky_body=SKY_BODIES, thing=THINGS,
                 colour=COLOURS, spot=SPOTS, size=SIZES, style=STYLES)
    chosen = dict(spot="middle", size="big") | names
    return Scenes(*(torch.tensor([lists[key].index(chosen[key]) if key in chosen else 0]) for key in lists),
                  seed=torch.tensor([seed]))
