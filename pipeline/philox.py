"""Philox4x32-10 (Salmon et al., 2011), the generator of NVIDIA GPUs: a CUDA machine's noise on any machine."""

import math

import numpy as np

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

# CUDA's float32 constants: 2**-32 and 2**-32 * 2 pi
TO_UNIT = float(np.float32(2.3283064e-10))
TO_ANGLE = float(np.float32(2.3283064e-10 * 6.2831855))


class PhiloxGenerator:
    """Standard normals in the order of torch.randn on CUDA. Any int is a seed; it counts modulo 2**64.

    Equals CUDA up to the last digits, for draws of no more elements than the GPU runs threads at once.
    """

    def __init__(self, seed: int):
        self.key = (seed & WORD, (seed >> 32) & WORD)
        self.offset = 0

    def randn(self, shape: tuple[int, ...]) -> np.ndarray:
        """Float32 normals of `shape`. Each call is one draw, whatever its size."""
        elements = np.arange(math.prod(shape), dtype=np.uint64)
        zeros = np.zeros_like(elements)
        words = philox((zeros + np.uint64(self.offset), zeros, elements, zeros), self.key)
        self.offset += 1
        return box_muller(words[0], words[1]).reshape(shape)


def philox(counter: tuple[np.ndarray, ...], key: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Four random 32-bit words per counter. Words, in and out, are held in uint64 to leave room for products."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p, q = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = high(q) ^ c1 ^ np.uint64(k0), low(q), high(p) ^ c3 ^ np.uint64(k1), low(p)
        k0, k1 = (k0 + KEY_STEPS[0]) & WORD, (k1 + KEY_STEPS[1]) & WORD
    return c0, c1, c2, c3


def high(product: np.ndarray) -> np.ndarray:
    return product >> np.uint64(32)


def low(product: np.ndarray) -> np.ndarray:
    return product & np.uint64(WORD)


def box_muller(g0: np.ndarray, g1: np.ndarray) -> np.ndarray:
    """The sine half of the Box-Muller transform of two random words, float32."""
    u = g0 * TO_UNIT + TO_UNIT / 2
    v = g1 * TO_ANGLE + TO_ANGLE / 2
    return (np.sqrt(-2 * np.log(u)) * np.sin(v)).astype(np.float32)
