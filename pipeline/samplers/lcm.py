"""Latent consistency models (Luo et al., 2023): the network jumps to the picture, then noise is added for the next level."""

from itertools import pairwise

from torch import Tensor

from pipeline.families.prediction import DiscreteSchedule, append_dims
from pipeline.samplers.solvers import Callback, Model, NoiseSampler, no_op, row_each

SKIP = 20
"""Spacing of the timesteps that the network was distilled at: 50 of 1000, including the last."""
SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0


class LCMSchedule(DiscreteSchedule):
    """The noise levels of a consistency model, and the meaning of its output."""

    def __init__(self, alphas_cumprod: Tensor):
        super().__init__(alphas_cumprod[SKIP - 1::SKIP].float(), quantize=True)

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        """The nearest of the 50 timesteps, an integer."""
        return super().sigma_to_t(sigma) * SKIP + (SKIP - 1)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        return super().t_to_sigma(((t - (SKIP - 1)) / SKIP).float().clamp(0, len(self.sigmas) - 1))

    def to_denoised(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The boundary condition of consistency models: at t = 0 the output is x itself.

        A1111: the output is taken as eps even if the network predicts v.
        """
        scaled = append_dims(self.sigma_to_t(sigma), x) * TIMESTEP_SCALING
        c_skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
        c_out = scaled / (scaled**2 + SIGMA_DATA**2) ** 0.5
        return c_out * (x - append_dims(sigma, x) * output) + c_skip * x


def sample_lcm(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
               noise_sampler: NoiseSampler) -> Tensor:
    """Multistep consistency sampling."""
    s_in = row_each(x)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x = model(x, sigma * s_in)
        callback(i, x)
        if sigma_next > 0:
            x = x + sigma_next * noise_sampler(sigma, sigma_next)
    return x
