"""What each type of network adds to a weight. A new type is one function and one row of TYPES.

All arithmetic is float32. `weight` is the layer's, (out, in) or (out, in, kh, kw); `parts` are the network's tensors
for this layer under the names of keys.PARTS; a delta has the weight's number of elements unless it does not fit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

Parts = Mapping[str, Tensor]

NUMBERS = ("alpha", "scale", "on_input")
"""Parts that are one number each."""
SPARSE_BIAS = {"bias_indices", "bias_values", "bias_size"}

MASKED_LATENT_INPUTS = 9
"""Input channels of an inpainting UNet, the first 4 of which are the latent."""


class DoesNotFit(Exception):
    """Tensors that do not fit each other or the layer's weight."""


def lora(parts: Parts, weight: Tensor, dyn_dim: int | None) -> Tensor:
    """LoRA (Hu et al., 2021) and LoCon; with `mid` a convolution in CP form. dyn_dim: use only the first ranks."""
    up, down = parts["up"].flatten(1), parts["down"]
    if "mid" in parts:
        return torch.einsum("nmkl,in,mj->ijkl", parts["mid"], up, down.flatten(1))
    return (up[:, :dyn_dim] @ down[:dyn_dim].flatten(1)).reshape(len(up), *down.shape[1:])


def loha(parts: Parts, weight: Tensor, dyn_dim: int | None) -> Tensor:
    """LoHa (Hyeon-Woo et al., 2021): the elementwise product of two low-rank matrices, each with a core if it has a `t`."""
    return hadamard_factor(parts, "1") * hadamard_factor(parts, "2")


def hadamard_factor(parts: Parts, which: str) -> Tensor:
    a, b, core = parts[f"hada_w{which}_a"], parts[f"hada_w{which}_b"], parts.get(f"hada_t{which}")
    return a @ b.flatten(1) if core is None else tucker(core, a, b)


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """core (r, s, kh, kw), a (r, out), b (s, in) → (out, in, kh, kw)."""
    return torch.einsum("rskl,ro,si->oikl", core, a, b)


def lokr(parts: Parts, weight: Tensor, dyn_dim: int | None) -> Tensor:
    """LoKr (Yeh et al., 2023): a Kronecker product of two matrices, each whole or in two factors."""
    first = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    if "lokr_w2" in parts:
        second = parts["lokr_w2"]
    elif "lokr_t2" in parts:
        second = tucker(parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"])
    else:
        second = parts["lokr_w2_a"] @ parts["lokr_w2_b"].flatten(1)
    return torch.kron(first.reshape(*first.shape, *[1] * (second.ndim - 2)), second)


def ia3(parts: Parts, weight: Tensor, dyn_dim: int | None) -> Tensor:
    """IA3 (Liu et al., 2022): the weight times a factor per input or per output."""
    axis = 1 if parts["on_input"] else 0
    return weight * along(parts["weight"], axis, weight)


def full(parts: Parts, weight: Tensor, dyn_dim: int | None) -> Tensor:
    """The full difference of the weights."""
    return parts["diff"]


def norm(parts: Parts, weight: Tensor, dyn_dim: int | None) -> Tensor:
    """The difference of a normalisation's weights."""
    return parts["w_norm"]


def glora(parts: Parts, weight: Tensor, dyn_dim: int | None) -> Tensor:
    """GLoRA (Chavan et al., 2023): a low-rank matrix plus a low-rank map of the weight.

    A1111: alpha is required but not used.
    """
    a1, a2, b1, b2 = (parts[name].flatten(1) for name in ("a1", "a2", "b1", "b2"))
    return b2 @ b1 + weight.flatten(1) @ a2 @ a1


def oft(parts: Parts, weight: Tensor, dyn_dim: int | None) -> Tensor:
    """OFT (Qiu et al., 2023): rotated blocks of outputs. `oft_diag` holds the rotations, `oft_blocks` their generators.

    With four axes it is BOFT (Liu et al., 2023): several rotations over butterfly permutations of the outputs.
    """
    if "oft_diag" in parts:
        rotations = parts["oft_diag"]
    else:
        alpha = float(parts["alpha"]) if "alpha" in parts else 0.0
        rotations = cayley(parts["oft_blocks"], largest=alpha * len(weight))
    rows = butterfly(rotations, weight.flatten(1)) if rotations.ndim == 4 else rotate(rotations.mT, weight.flatten(1))
    rotated = rows.reshape(weight.shape)
    if "rescale" in parts:
        rotated = rotated * along(parts["rescale"], 0, weight)
    return rotated - weight


def cayley(blocks: Tensor, largest: float) -> Tensor:
    """Rotations (..., n, n) from any square matrices; their generators' total norm is at most `largest`, 0: unlimited."""
    generator = blocks - blocks.mT
    if largest:
        size = generator.norm()
        generator = generator * ((size.clamp(max=largest) + 1e-8) / (size + 1e-8))
    eye = torch.eye(blocks.shape[-1], device=blocks.device)
    return (eye + generator) @ torch.linalg.inv(eye - generator)


def rotate(rotations: Tensor, rows: Tensor) -> Tensor:
    """Rotations (k, n, n) of consecutive blocks of rows (k n, width). Raises DoesNotFit."""
    if len(rotations) * rotations.shape[-1] != len(rows):
        raise DoesNotFit
    return (rotations @ rows.reshape(len(rotations), rotations.shape[-1], -1)).reshape(rows.shape)


def butterfly(rotations: Tensor, rows: Tensor) -> Tensor:
    """Rotations (m, k, n, n) in turn; the i-th acts on rows that are n/2 * 2^i apart."""
    for level, blocks in enumerate(rotations):
        distance = 2**level * (rotations.shape[-1] // 2)
        paired = rows.unflatten(0, (-1, 2, distance)).transpose(1, 2).reshape(rows.shape)
        rows = rotate(blocks, paired).unflatten(0, (-1, distance, 2)).transpose(1, 2).reshape(rows.shape)
    return rows


def along(vector: Tensor, axis: int, like: Tensor) -> Tensor:
    """`vector`, of any shape, along one axis of a tensor with as many axes as `like`."""
    return vector.reshape([-1 if i == axis else 1 for i in range(like.ndim)])


@dataclass(frozen=True)
class NetworkType:
    """How a type of network is recognised and what it adds."""

    needs: tuple[str, ...]
    """Required parts; "a|b" if either will do."""
    delta: Callable[[Parts, Tensor, int | None], Tensor]
    rank: tuple[str, ...] = ()
    """Parts whose first axis is the rank that divides alpha; the first present one counts. (): alpha has no effect."""
    bias: str | None = None
    """The part that is added to the layer's bias."""
    changes: bool = False
    """Whether what it adds depends on the weight's value."""

    def takes(self, parts: Parts) -> bool:
        return all(any(name in parts for name in need.split("|")) for need in self.needs)


TYPES = {
    "LoRA": NetworkType(("up", "down"), lora, rank=("down",)),
    "LoHa": NetworkType(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), loha, rank=("hada_w1_b",)),
    "IA3": NetworkType(("weight", "on_input"), ia3, changes=True),
    "LoKr": NetworkType(("lokr_w1|lokr_w1_a", "lokr_w1|lokr_w1_b", "lokr_w2|lokr_w2_a", "lokr_w2|lokr_w2_b"), lokr,
                        rank=("lokr_w2_b", "lokr_w1_b")),
    "full": NetworkType(("diff",), full, bias="diff_b"),
    "norm": NetworkType(("w_norm", "b_norm"), norm, bias="b_norm"),
    "GLoRA": NetworkType(("a1", "a2", "b1", "b2", "alpha"), glora, changes=True),
    "OFT": NetworkType(("oft_blocks|oft_diag",), oft, changes=True),
}
"""In the order they are tried."""


def find_type(parts: Parts) -> NetworkType | None:
    """The first type that takes these parts."""
    return next((kind for kind in TYPES.values() if kind.takes(parts)), None)


def depends_on_weight(parts: Parts) -> bool:
    """Whether the network would add something else to a changed weight."""
    kind = find_type(parts)
    return kind is None or kind.changes or not parts.keys().isdisjoint(("magnitude_vector", "dora_scale"))


def weight_delta(parts: Parts, weight: Tensor, multiplier: float = 1.0, *, dyn_dim: int | None = None) -> Tensor:
    """What a network adds to a layer's weight, in the weight's shape. Raises DoesNotFit.

    A dry run on shapes comes first, so that a file whose factors make a huge matrix is refused at no cost.
    """
    kind = find_type(parts)
    if kind is None or any(parts[name].numel() != 1 for name in NUMBERS if name in parts):
        raise DoesNotFit
    parts = with_dense_bias(parts, weight)
    shapes = tuple((name, part.shape, part.dtype, float(part) if name in NUMBERS else 0.0) for name, part in parts.items())
    if not fits(kind, shapes, weight.shape, dyn_dim):
        raise DoesNotFit
    return _weight_delta(kind, parts, weight, multiplier, dyn_dim)


@lru_cache(4096)
def fits(kind: NetworkType, parts: tuple[tuple[str, torch.Size, torch.dtype, float], ...], weight: torch.Size, dyn_dim: int | None) -> bool:
    """Whether parts, given as (name, shape, dtype, value of a number), make a delta for a weight of that shape.

    Cached: the dry run on the "meta" device takes longer than the matrices of a small layer.
    """
    blank = {name: torch.full(shape, number, dtype=dtype, device="cpu" if name in NUMBERS else "meta")
             for name, shape, dtype, number in parts}
    try:
        _weight_delta(kind, blank, torch.empty(weight, device="meta"), 1.0, dyn_dim)
    except (RuntimeError, IndexError, DoesNotFit):
        return False
    return True


def _weight_delta(kind: NetworkType, parts: Parts, weight: Tensor, multiplier: float, dyn_dim: int | None) -> Tensor:
    delta = fit(kind.delta(parts, weight, dyn_dim), weight)
    if "bias" in parts:
        delta = delta + parts["bias"].reshape(delta.shape)
    own = scale(kind, parts)
    if "magnitude_vector" in parts:
        return decompose(weight, delta * own, parts["magnitude_vector"], axis=0) * multiplier
    if "dora_scale" in parts:
        return decompose(weight, delta * own, parts["dora_scale"], axis=dora_axis(parts["dora_scale"])) * multiplier
    return delta * (own * multiplier)


def bias_delta(parts: Parts, out: int) -> Tensor | None:
    """What a network adds to a layer's bias at multiplier 1: (out,), or None. Raises DoesNotFit."""
    kind = find_type(parts)
    delta = parts.get(kind.bias) if kind is not None and kind.bias else None
    if delta is not None and delta.numel() != out:
        raise DoesNotFit
    return None if delta is None else delta.flatten()


def fit(delta: Tensor, weight: Tensor) -> Tensor:
    """`delta` in the weight's shape. Raises DoesNotFit.

    A1111: a network trained on 4 input channels acts on the first 4 of an inpainting checkpoint's 9.
    """
    if weight.ndim == delta.ndim == 4 and weight.shape[1] == MASKED_LATENT_INPUTS and delta.shape[1] == 4:
        delta = F.pad(delta, (0, 0, 0, 0, 0, MASKED_LATENT_INPUTS - 4))
    if delta.numel() != weight.numel() or len(delta) != len(weight):
        raise DoesNotFit
    return delta.reshape(weight.shape)


def with_dense_bias(parts: Parts, weight: Tensor) -> Parts:
    """`parts` with a sparse `bias` made dense. LoCon's "bias" is added to the weight."""
    if not SPARSE_BIAS <= parts.keys():
        return parts
    size = torch.Size(parts["bias_size"].flatten().long().tolist())
    if size.numel() != weight.numel():
        raise DoesNotFit
    try:
        bias = torch.sparse_coo_tensor(parts["bias_indices"].long(), parts["bias_values"], size, check_invariants=True)
    except RuntimeError as error:
        raise DoesNotFit from error
    return {name: part for name, part in parts.items() if name not in SPARSE_BIAS} | {"bias": bias.to_dense()}


def scale(kind: NetworkType, parts: Parts) -> float:
    """The file's own `scale`, else alpha / rank, else 1."""
    if "scale" in parts:
        return float(parts["scale"])
    ranks = [parts[name].shape[:1].numel() for name in kind.rank if name in parts]
    return float(parts["alpha"]) / max(ranks[0], 1) if ranks and "alpha" in parts else 1.0


def decompose(weight: Tensor, delta: Tensor, magnitude: Tensor, *, axis: int) -> Tensor:
    """DoRA (Liu et al., 2024): the merged weight rescaled to the trained magnitudes along `axis`, minus the weight."""
    merged = weight + delta
    others = [i for i in range(weight.ndim) if i != axis]
    return merged * (along(magnitude, axis, weight) / torch.linalg.vector_norm(merged, dim=others, keepdim=True)) - weight


def dora_axis(magnitude: Tensor) -> int:
    """0, outputs, for newer LyCORIS files (out, 1, ...); 1, inputs, for older ones (1, in, ...)."""
    return 0 if magnitude.shape[0] == magnitude.numel() else 1
