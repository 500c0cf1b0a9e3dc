"""What a network may take over from earlier calls: where, from which edit, and how often it did."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A part of a map, in its cells; the lower and right bounds are outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def rows(self) -> slice:
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.right)

    def aligned(self, cells: int, height: int, width: int) -> "Window":
        """The smallest window around this one whose bounds are multiples of `cells`, within a map of that size."""
        return Window(self.top // cells * cells, self.left // cells * cells,
                      min(-(-self.bottom // cells) * cells, height), min(-(-self.right // cells) * cells, width))

    def scaled(self, height: int, width: int) -> "Window":
        """The same part of a larger or smaller map, in which it has this size."""
        return Window(self.top * height // self.height, self.left * width // self.width,
                      self.bottom * height // self.height, self.right * width // self.width)


@dataclass(frozen=True)
class Edit:
    """What is edited, for a network that remembers its latest edit."""

    key: tuple
    """Edits with equal keys start from the same picture and take the same calls."""
    window: Window
    """The part of the latent that may change."""


@dataclass(frozen=True)
class Reuse:
    """What a network may take over from earlier calls in place of computing it: faster, and a little different."""

    interval: int = 1
    """Calls that share their deep features; 1: each has its own."""
    threshold: float = 0.0
    """They are shared while the first layer's output has changed by less than this share; 0: that is not asked."""
    edit: Edit | None = None
    """Where the same picture was edited before, only around its window; this goes before the others."""


@dataclass
class Reused:
    """How often a network did so."""

    calls: int = 0
