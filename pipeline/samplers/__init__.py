"""Which samplers there are. A new one is a function in solvers.py or timesteps.py and a row in SAMPLERS."""

from dataclasses import dataclass
from typing import Callable

from torch import Tensor

from pipeline.errors import UnknownName
from pipeline.families.base import Family
from pipeline.samplers import solvers, timesteps
from pipeline.samplers.sampler import KDiffusionSampler, Sampler, TimestepSampler
from pipeline.samplers.schedules import SCHEDULES, Schedule, find_schedule

CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")


@dataclass(frozen=True)
class SamplerRow:
    """A sampler as A1111 lists it."""

    name: str
    solver: Callable[..., Tensor]
    aliases: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    """The request's settings that the solver has a use for; none: it draws no noise."""
    kind: type[Sampler] = KDiffusionSampler
    scheduler: str | None = None
    """Name of the schedule that "Automatic" means; None: every n-th training timestep."""
    second_order: bool = False
    """Calls the model twice a step."""
    brownian: bool = False
    """Noise comes from a Brownian motion over the schedule instead of step by step."""
    discard_next_to_last_sigma: bool = False
    uses_ensd: bool = False


SAMPLERS = {row.name: row for row in (
    SamplerRow("DPM++ 2M", solvers.sample_dpmpp_2m, ("k_dpmpp_2m",), scheduler="karras"),
    SamplerRow("DPM++ SDE", solvers.sample_dpmpp_sde, ("k_dpmpp_sde",), ("eta", "s_noise"), scheduler="karras",
               second_order=True, brownian=True),
    SamplerRow("DPM++ 2M SDE", solvers.sample_dpmpp_2m_sde, ("k_dpmpp_2m_sde",), ("eta", "s_noise"),
               scheduler="exponential", brownian=True),
    SamplerRow("Euler a", solvers.sample_euler_ancestral, ("k_euler_a", "k_euler_ancestral"), ("eta",), uses_ensd=True),
    SamplerRow("Euler", solvers.sample_euler, ("k_euler",), CHURN),
    SamplerRow("Heun", solvers.sample_heun, ("k_heun",), CHURN, second_order=True),
    SamplerRow("DDIM", timesteps.sample_ddim, ("ddim",), ("eta",), kind=TimestepSampler),
)}


def create_sampler(name: str, sd_model: Family) -> Sampler:
    """The sampler of that name for a model. Raises UnknownName."""
    row = SAMPLERS[checked(name)]
    return row.kind(row, sd_model)


def resolve_names(sampler_name: str | None, scheduler: str | None) -> tuple[str, str]:
    """(a name in SAMPLERS, a schedule's label) of what a request says. Raises UnknownName.

    No sampler is "DPM++ 2M", no schedule is "Automatic"; "DPM++ 2M Karras" is the sampler with the schedule.
    """
    schedule = find_schedule(str(scheduler)) if scheduler else SCHEDULES["automatic"]
    if schedule is None:
        raise UnknownName("scheduler", "schedule type", scheduler, [s.label for s in SCHEDULES.values()])
    name = str(sampler_name or "DPM++ 2M")
    endings = {ending: s.label for s in SCHEDULES.values() for ending in (s.label, s.name, *s.aliases)}
    for ending in sorted(endings, key=len, reverse=True):
        if name.endswith(" " + ending):
            return checked(name.removesuffix(" " + ending)), endings[ending]
    return checked(name), schedule.label


def checked(name: str) -> str:
    if name not in SAMPLERS:
        raise UnknownName("sampler_name", "sampler", name, SAMPLERS)
    return name


def schedule_label(name: str, scheduler: str) -> str:
    """What infotext calls the schedule: the sampler's own where "Automatic" means a particular one."""
    default = SAMPLERS[name].scheduler
    return SCHEDULES[default].label if scheduler == "Automatic" and default else scheduler


__all__ = ["SAMPLERS", "SCHEDULES", "SamplerRow", "Schedule", "create_sampler", "resolve_names", "schedule_label"]
