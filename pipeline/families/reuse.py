"""What a network may reuse from earlier calls, and how often it did."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A part of a map, in its cells; the lower and right bounds are exclusive."""

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
        """The smallest window around this one with bounds that are multiples of `cells`, within a map of that size."""
        return Window(self.top // cells * cells, self.left // cells * cells,
                      min(-(-self.bottom // cells) * cells, height), min(-(-self.right // cells) * cells, width))

    def scaled(self, height: int, width: int) -> "Window":
        """The same part of the map resized to this size."""
        return Window(self.top * height // self.height, self.left * width // self.width,
                      self.bottom * height // self.height, self.right * width // self.width)


@dataclass(frozen=True)
class Edit:
    """The current edit, for a network that remembers its latest one."""

    key: tuple
    """Edits with equal keys start from the same picture and make the same calls."""
    window: Window
    """The part of the latent that may change."""


@dataclass(frozen=True)
class Reuse:
    """What a network may reuse from earlier calls instead of computing it: faster, slightly different."""

    interval: int = 1
    """Calls that share one pass through the deep layers; 1: none do."""
    threshold: float = 0.0
    """They are shared while the first layer's output has changed by less than this fraction; 0: not checked."""
    edit: Edit | None = None
    """If the same picture was edited before, compute only around this edit's window; takes precedence over the others."""

    @property
    def reuses(self) -> bool:
        """Whether a call may depend on earlier ones."""
        return self.interval > 1 or self.threshold > 0 or self.edit is not None


@dataclass
class Reused:
    """How often a network reused something."""

    calls: int = 0
