"""Noise that looks like a picture: with its spectrum and its colours."""

import numpy as np

from pipeline.errors import InvalidRequest


def matched_noise(pixels: np.ndarray, mask: np.ndarray, exponent: float, color_variation: float) -> np.ndarray:
    """`pixels` with noise where `mask` is 1; all (H, W, 3) float64 in [0, 1].

    The noise has the picture's phases, its magnitudes raised to `exponent`, and its colour histograms. Raises
    InvalidRequest if the mask leaves nothing of the picture.
    """
    gray = mask.sum(axis=2) / 3
    hole, reference = gray > 1e-6, gray < 1e-3
    if not reference.any():
        raise InvalidRequest("script_args", "script_args: Mask blur is larger than the picture")
    windowed = pixels * (1.0 - gray[..., None])
    windowed = windowed / (windowed.max() or 1.0) + pixels.mean() * mask
    spectrum = fft2(windowed)
    magnitude = np.abs(spectrum)
    phase = np.divide(spectrum, magnitude, out=np.zeros_like(spectrum), where=magnitude > 0)
    shaped = np.abs(fft2(soft_noise(pixels.shape, color_variation))) ** 2 * magnitude**exponent * phase
    noise = np.real(ifft2(shaped))
    noise -= noise.min()
    noise /= noise.max() or 1.0
    for channel in range(3):
        noise[hole, channel] = match_values(noise[hole, channel], pixels[reference, channel])
    return np.clip(pixels * (1.0 - mask) + noise * mask, 0.0, 1.0)


def soft_noise(shape: tuple[int, int, int], color_variation: float) -> np.ndarray:
    """Mostly low-frequency noise (H, W, 3), the same for every picture of a size; grey if color_variation is 0."""
    # A1111: always seed 0; only sampling depends on the request's seed
    noise = np.random.default_rng(0).random(shape)
    noise = noise * color_variation + (1.0 - color_variation) * (noise.sum(axis=2, keepdims=True) / 3)
    y, x = ((np.arange(length) / length * 2.0 - 1.0) * (length / min(shape[:2])) for length in shape[:2])
    window = 1 / ((y[:, None] ** 2 + 1.0) * (x[None] ** 2 + 1.0))
    return np.real(ifft2(fft2(noise) * window[..., None]))


def fft2(pixels: np.ndarray) -> np.ndarray:
    """The spectrum of each channel, zero frequency in the middle; (H, W, C)."""
    return np.fft.ifftshift(np.fft.fft2(np.fft.fftshift(pixels, (0, 1)), axes=(0, 1), norm="ortho"), (0, 1))


def ifft2(spectrum: np.ndarray) -> np.ndarray:
    """The inverse of fft2, complex."""
    return np.fft.ifftshift(np.fft.ifft2(np.fft.fftshift(spectrum, (0, 1)), axes=(0, 1), norm="ortho"), (0, 1))


def match_values(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`values` (N,) mapped to the distribution of `reference` (M,)."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    targets, target_counts = np.unique(reference, return_counts=True)
    return np.interp(np.cumsum(counts) / values.size, np.cumsum(target_counts) / reference.size, targets)[places]
