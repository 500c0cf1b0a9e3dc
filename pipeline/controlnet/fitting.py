"""A control map at the size of the result: the three ways to resize it, and edges that stay one pixel wide."""

import cv2
import numpy as np

from pipeline.geometry import Size

FEW_COLOURS = 200
"""Maps with fewer colours, such as segmentations, are not blended between pixels."""
INPAINTING = 4
"""Channels of a map with a mask."""


def fitted(control: np.ndarray, target: Size, resize_mode: str) -> np.ndarray:
    """The map (h, w, 3 or 4) uint8 at the target's size, by one of RESIZE_MODES."""
    height, width = control.shape[:2]
    if resize_mode == "Just Resize":
        return scaled(control, target)
    scales = target.height / height, target.width / width
    if resize_mode == "Resize and Fill":
        scale = min(scales)
        canvas = np.tile(border_colour(control), (target.height, target.width, 1))
        inner = scaled(control, rounded(width * scale, height * scale))
        top, left = max(0, (target.height - inner.shape[0]) // 2), max(0, (target.width - inner.shape[1]) // 2)
        canvas[top:top + inner.shape[0], left:left + inner.shape[1]] = inner
        return canvas
    scale = max(scales)
    inner = scaled(control, rounded(width * scale, height * scale))
    top, left = max(0, (inner.shape[0] - target.height) // 2), max(0, (inner.shape[1] - target.width) // 2)
    return np.ascontiguousarray(inner[top:top + target.height, left:left + target.width])


def rounded(width: float, height: float) -> Size:
    return Size(max(int(np.round(width)), 1), max(int(np.round(height)), 1))


def border_colour(control: np.ndarray) -> np.ndarray:
    """The median of the outermost pixels; with a mask, the new border is to be painted."""
    border = np.concatenate([control[0], control[-1], control[:, 0], control[:, -1]])
    colour = np.median(border, axis=0).astype(np.uint8)
    if control.shape[2] == INPAINTING:
        colour[3] = 255
    return colour


def scaled(control: np.ndarray, size: Size) -> np.ndarray:
    """The map at another size. Maps of few colours keep them, black and white ones stay so, and edges stay thin."""
    colours, mask = control[..., :3], control[..., 3] if control.shape[2] == INPAINTING else None
    area, before = size.width * size.height, colours.shape[0] * colours.shape[1]
    found = count_colours(colours)
    interpolation = cv2.INTER_NEAREST if 2 < found < FEW_COLOURS else cv2.INTER_AREA if area < before else cv2.INTER_CUBIC
    result = cv2.resize(np.ascontiguousarray(colours), size, interpolation=interpolation)
    if found == 2 and colours.min() < 16 and colours.max() > 240:
        grey = result.astype(np.float32).mean(axis=2).clip(0, 255).astype(np.uint8)
        thin = is_one_pixel_wide(colours)
        grey = ridges(grey) if thin else grey
        _, grey = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        result = np.repeat((thinned(grey) if thin else grey)[..., None], 3, axis=2)
    if mask is None:
        return result
    mask = cv2.resize(np.ascontiguousarray(mask), size, interpolation=interpolation)
    return np.dstack([result, np.where(mask > 127, 255, 0).astype(np.uint8)])


def count_colours(colours: np.ndarray) -> int:
    values = colours.astype(np.uint32)
    return len(np.unique(values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2]))


def is_one_pixel_wide(colours: np.ndarray) -> bool:
    """Whether most of what is white in a black and white map is thinner than three pixels."""
    kernel = np.ones((3, 3), np.uint8)
    opened = cv2.dilate(cv2.erode(colours, kernel), kernel)
    return 2 * np.count_nonzero(opened < colours) > np.count_nonzero(colours > 127)


DIRECTIONS = tuple(np.array(kernel, np.uint8) for kernel in (
    [[0, 0, 0], [1, 1, 1], [0, 0, 0]], [[0, 1, 0], [0, 1, 0], [0, 1, 0]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 1], [0, 1, 0], [1, 0, 0]]))


def ridges(grey: np.ndarray) -> np.ndarray:
    """The pixels that are a maximum along some direction; others 0."""
    kept = np.zeros(grey.shape, bool)
    for direction in DIRECTIONS:
        kept |= cv2.dilate(grey, direction) == grey
    return np.where(kept, grey, 0).astype(np.uint8)


def thinned(edges: np.ndarray) -> np.ndarray:
    """The middle lines of what is 255, one pixel wide (Zhang and Suen, 1984)."""
    image = np.pad(edges > 0, 1)
    while True:
        removed = sum(remove_border(image, step) for step in (0, 1))
        if not removed:
            return np.where(image[1:-1, 1:-1], 255, 0).astype(np.uint8)


def remove_border(image: np.ndarray, step: int) -> int:
    """One of the two passes of the thinning, in place; returns how many pixels it removed."""
    # the eight neighbours, clockwise from above
    around = [image[1 + dy:image.shape[0] - 1 + dy, 1 + dx:image.shape[1] - 1 + dx]
              for dy, dx in ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))]
    count = np.sum(around, axis=0, dtype=np.uint8)
    turns = np.sum([~before & after for before, after in zip(around, around[1:] + around[:1])], axis=0, dtype=np.uint8)
    north, east, south, west = around[0], around[2], around[4], around[6]
    sides = (north & east & south) | (east & south & west) if step == 0 else (north & east & west) | (north & south & west)
    gone = image[1:-1, 1:-1] & (count >= 2) & (count <= 6) & (turns == 1) & ~sides
    image[1:-1, 1:-1] &= ~gone
    return int(gone.sum())
