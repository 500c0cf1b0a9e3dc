"""The meaning of a network's output, and its time in terms of the noise level.

Solvers always work with z = x0 + sigma * noise. A prediction translates that to the network's input, and the network's
output to the x0 estimate.
"""

from typing import Protocol, Self

import torch
from torch import Tensor


class Prediction(Protocol):
    """Translates between a network and z = x0 + sigma * noise. Noise levels are (B,) or any shape, on the CPU or with x;
    pictures are (B, C, h, w)."""

    sigmas: Tensor
    """Noise levels of the network's 1000 training timesteps: ascending, float32, on the CPU."""
    steps: "DiscreteSchedule | None"
    """Itself if the network was trained on discrete timesteps, which some samplers need; else None."""

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        """The t of a noise level; schedules space t evenly."""

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """The noise level at t, which may be fractional."""

    def time(self, sigma: Tensor) -> Tensor:
        """The time argument of denoise() for a noise level."""

    def completed(self, sigma: Tensor) -> float:
        """Fraction of the training timesteps done at the highest of these levels, 0 to 1."""

    def scale_input(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The network's input for z."""

    def to_denoised(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The x0 estimate for the network's output."""

    def altered(self, *, downcast: bool, zero_snr: bool, quantize: bool, shift: float = 0.0) -> Self:
        """A copy with A1111's options for discrete timesteps applied, or a flow's with this shift unless it is 0."""


def append_dims(x: Tensor, like: Tensor) -> Tensor:
    """`x` of shape (B,) with trailing axes of length 1, so that it broadcasts over `like`."""
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


# --- discrete timesteps ----------------------------------------------------------------------------------------------

class DiscreteSchedule:
    """Noise levels of a network trained on discrete timesteps, and conversion between sigma and t.

    alphas_cumprod: (1000,) float32 on the CPU. log sigma is linear between timesteps, so sigma_to_t gives a
    fractional t, as in k-diffusion's DiscreteSchedule; with `quantize`, the nearest integer.
    """

    def __init__(self, alphas_cumprod: Tensor, *, quantize: bool = False):
        self.alphas_cumprod, self.quantize = alphas_cumprod, quantize
        self.sigmas = ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5
        self.log_sigmas = self.sigmas.log()

    @property
    def steps(self) -> "DiscreteSchedule":
        return self

    def altered(self, *, downcast: bool, zero_snr: bool, quantize: bool, shift: float = 0.0) -> Self:
        # A1111: use_downcasted_alpha_bar: everything derived from them is computed in this precision too
        alphas = self.alphas_cumprod.half() if downcast else self.alphas_cumprod
        return type(self)(zero_terminal_snr(alphas) if zero_snr else alphas, quantize=quantize)

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        log_sigma = sigma.log()
        log_sigmas = self.log_sigmas.to(log_sigma.device, log_sigma.dtype, non_blocking=True)
        distance = log_sigma - log_sigmas[:, None]
        if self.quantize:
            return distance.abs().argmin(dim=0).view(sigma.shape)
        low = distance.ge(0).cumsum(dim=0).argmax(dim=0).clamp(max=len(log_sigmas) - 2)
        below, above = log_sigmas[low], log_sigmas[low + 1]
        w = ((below - log_sigma) / (below - above)).clamp(0, 1)
        return ((1 - w) * low + w * (low + 1)).view(sigma.shape)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        log_sigmas = self.log_sigmas.to(t.device)
        t = t.float()
        low, high, w = t.floor().long(), t.ceil().long(), t.frac()
        return ((1 - w) * log_sigmas[low] + w * log_sigmas[high]).exp()

    def time(self, sigma: Tensor) -> Tensor:
        return self.sigma_to_t(sigma)

    def completed(self, sigma: Tensor) -> float:
        # A1111: counted in the sampler's own table, which has 50 entries for LCM
        return (999 - (self.sigmas - sigma.max()).abs().argmin().item()) / 1000

    def scale_input(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x * append_dims(1 / (sigma**2 + 1) ** 0.5, x)

    def to_denoised(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        raise NotImplementedError

    def to_eps(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The noise estimate in x of unit variance at integer timesteps t (B,)."""
        raise NotImplementedError


class Eps(DiscreteSchedule):
    """The network predicts the noise (Ho et al., 2020)."""

    def to_denoised(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        return x - append_dims(sigma, x) * output

    def to_eps(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return output


class V(DiscreteSchedule):
    """The network predicts velocity (Salimans and Ho, 2022)."""

    def to_denoised(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = append_dims(sigma, x)
        return output * (-sigma / (sigma**2 + 1) ** 0.5) + x * (1 / (sigma**2 + 1))

    def to_eps(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        alpha = append_dims(self.alphas_cumprod[t.long()].to(x.device, non_blocking=True), x)
        return alpha**0.5 * output + (1 - alpha) ** 0.5 * x


def zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """The schedule rescaled so that the last timestep is almost pure noise (Lin et al., 2023)."""
    root = alphas_cumprod**0.5
    stretched = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
    # A1111: not 0, which has no sigma
    stretched[-1] = 4.8973451890853435e-08
    return stretched


# --- flow matching ---------------------------------------------------------------------------------------------------

LAST_TIME = 1 - 1e-4
"""Pure noise would be sigma = infinity; a flow's schedule starts this close to it."""


class Flow:
    """The network predicts the velocity noise - x0 of a straight path (Liu et al., 2022; Lipman et al., 2022).

    Its own latent is x_t = t * noise + (1 - t) * x0. Dividing by 1 - t gives z = x0 + sigma * noise with
    sigma = t / (1 - t), which solvers use; so start noise, mask blend and every solver work unchanged.

    shift: moves the schedule towards noise, t' = shift * t / (1 + (shift - 1) * t), which is sigma' = shift * sigma
    (Esser et al., 2024, equation 23). FLUX's exp(mu) is the same number.
    """

    steps = None

    def __init__(self, shift: float = 1.0):
        self.shift = shift
        self.sigmas = self.t_to_sigma(torch.arange(1, 1001) / 1000)

    def altered(self, *, downcast: bool, zero_snr: bool, quantize: bool, shift: float = 0.0) -> Self:
        return type(self)(shift) if shift else self

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """t before the shift, 0 to 1, as schedules space it."""
        t = t.float().clamp(max=LAST_TIME)
        return self.shift * t / (1 - t)

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        return sigma / (self.shift + sigma)

    def time(self, sigma: Tensor) -> Tensor:
        """The fraction of noise in the network's own latent, 0 to 1."""
        return sigma / (1 + sigma)

    def completed(self, sigma: Tensor) -> float:
        return 1 - self.time(sigma.max()).item()

    def scale_input(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x / (1 + append_dims(sigma, x))

    def to_denoised(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        return self.scale_input(x, sigma) - append_dims(self.time(sigma), x) * output
