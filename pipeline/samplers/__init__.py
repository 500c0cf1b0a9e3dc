"""The table of samplers. A new one is a function in solvers.py, or a file of its own, and a row in OURS."""

from pipeline.errors import UnknownName
from pipeline.families.base import Family
from pipeline.geometry import Size
from pipeline.options import Options
from pipeline.samplers import dpm_solver, lcm, restart, solvers, timesteps, unipc
from pipeline.samplers.sampler import LCMSampler, Sampler, SamplerRow, TimestepSampler, UniPCSampler
from pipeline.samplers.schedules import SCHEDULES, Schedule, find_schedule

CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")

OF_A1111 = (
    SamplerRow("DPM++ 2M", solvers.sample_dpmpp_2m, ("k_dpmpp_2m",), scheduler="karras", draws_noise=False),
    SamplerRow("DPM++ SDE", solvers.sample_dpmpp_sde, ("k_dpmpp_sde",), ("eta", "s_noise"), scheduler="karras",
               second_order=True, brownian=True),
    SamplerRow("DPM++ 2M SDE", solvers.sample_dpmpp_2m_sde, ("k_dpmpp_2m_sde",), ("eta", "s_noise"),
               scheduler="exponential", brownian=True),
    SamplerRow("DPM++ 2M SDE Heun", solvers.sample_dpmpp_2m_sde, ("k_dpmpp_2m_sde_heun",), ("eta", "s_noise"),
               scheduler="exponential", brownian=True, solver_type="heun"),
    SamplerRow("DPM++ 2S a", solvers.sample_dpmpp_2s_ancestral, ("k_dpmpp_2s_a",), ("eta", "s_noise"), scheduler="karras",
               second_order=True, uses_ensd=True),
    SamplerRow("DPM++ 3M SDE", solvers.sample_dpmpp_3m_sde, ("k_dpmpp_3m_sde",), ("eta", "s_noise"),
               scheduler="exponential", brownian=True, discard_next_to_last_sigma=True),
    SamplerRow("Euler a", solvers.sample_euler_ancestral, ("k_euler_a", "k_euler_ancestral"), ("eta",), uses_ensd=True),
    SamplerRow("Euler", solvers.sample_euler, ("k_euler",), CHURN),
    SamplerRow("LMS", solvers.sample_lms, ("k_lms",), draws_noise=False),
    SamplerRow("Heun", solvers.sample_heun, ("k_heun",), CHURN, second_order=True),
    SamplerRow("DPM2", solvers.sample_dpm_2, ("k_dpm_2",), CHURN, scheduler="karras", second_order=True,
               discard_next_to_last_sigma=True),
    SamplerRow("DPM2 a", solvers.sample_dpm_2_ancestral, ("k_dpm_2_a",), ("eta", "s_noise"), scheduler="karras",
               second_order=True, discard_next_to_last_sigma=True, uses_ensd=True),
    SamplerRow("DPM fast", dpm_solver.sample_dpm_fast, ("k_dpm_fast",), ("eta", "s_noise"), uses_ensd=True),
    SamplerRow("DPM adaptive", dpm_solver.sample_dpm_adaptive, ("k_dpm_ad",), ("eta",), uses_ensd=True),
    SamplerRow("Restart", restart.sample_restart, ("restart",), scheduler="karras", second_order=True),
    SamplerRow("DDIM", timesteps.sample_ddim, ("ddim",), ("eta",), kind=TimestepSampler),
    SamplerRow("DDIM CFG++", timesteps.sample_ddim, ("ddim_cfgpp",), ("eta",), kind=TimestepSampler, cfgpp=True),
    SamplerRow("PLMS", timesteps.sample_plms, ("plms",), kind=TimestepSampler, draws_noise=False),
    SamplerRow("UniPC", unipc.sample_unipc, ("unipc",), kind=UniPCSampler, draws_noise=False),
    SamplerRow("LCM", lcm.sample_lcm, ("k_lcm",), kind=LCMSampler),
)
"""In A1111's order."""
OURS: tuple[SamplerRow, ...] = ()
"""Samplers that A1111 lacks."""
SAMPLERS = {row.name: row for row in (*OF_A1111, *OURS)}
"""By name, in menu order: A1111's come first, so that scripts can name one by its position in A1111's list."""


def create_sampler(name: str, sd_model: Family, options: Options, size: Size) -> Sampler:
    """The sampler of that name for a model, with the noise schedule that the options ask for.

    size: of the picture, in pixels. Raises UnknownName, and InvalidRequest if sampler and model do not fit.
    """
    row = SAMPLERS[known(name)]
    return row.kind(row, sd_model, options, size)


def resolve_names(sampler_name: str | None, scheduler: str | None) -> tuple[str, str]:
    """(sampler's name in SAMPLERS, schedule's label) for a request's values. Raises UnknownName.

    No sampler means "DPM++ 2M", no schedule "Automatic"; "DPM++ 2M Karras" is split into both.
    """
    schedule = find_schedule(str(scheduler)) if scheduler else SCHEDULES["automatic"]
    if schedule is None:
        raise UnknownName("scheduler", "schedule type", scheduler, [s.label for s in SCHEDULES.values()])
    name, ending = split_schedule(str(sampler_name or "DPM++ 2M"))
    return known(name), ending or schedule.label


def split_schedule(name: str) -> tuple[str, str | None]:
    """("DPM++ 2M", "Karras") for "DPM++ 2M Karras"; (name, None) if it does not end with a schedule."""
    endings = {ending: s.label for s in SCHEDULES.values() for ending in (s.label, s.name, *s.aliases)}
    for ending in sorted(endings, key=len, reverse=True):
        if name.endswith(" " + ending):
            return name.removesuffix(" " + ending), endings[ending]
    return name, None


def known(name: str) -> str:
    if name not in SAMPLERS:
        raise UnknownName("sampler_name", "sampler", name, SAMPLERS)
    return name


def schedule_label(name: str, scheduler: str) -> str:
    """Infotext's name of the schedule: if "Automatic" means a particular one for this sampler, that one."""
    default = SAMPLERS[name].scheduler
    return SCHEDULES[default].label if scheduler == "Automatic" and default else scheduler


__all__ = ["OURS", "SAMPLERS", "SCHEDULES", "SamplerRow", "Schedule", "create_sampler", "resolve_names", "schedule_label",
           "split_schedule"]
