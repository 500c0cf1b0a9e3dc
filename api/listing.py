"""Lists of samplers, schedules, models and so on, in A1111's form."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from anyio import to_thread
from fastapi import APIRouter
from pydantic import TypeAdapter

from api.backend import Here
from api.models import (
    CheckpointItem, EmbeddingItem, EmbeddingsAnswer, ExtensionItem, FaceRestorerItem, LoraItem, MemoryAnswer, MemoryPlanAnswer, Named, PathItem,
    RealesrganItem, SamplerItem, SchedulerItem, ScriptItem, ScriptsAnswer, ServiceRequest, StyleItem, UpscalerItem, VaeItem, WorkerItem)
from api.scripts import descriptions, titles
from api.strict import StrictRoute
from api.visitors import Who, shown
from api.waiting import wait_for
from pipeline.hires import LATENT_UPSCALERS
from pipeline.limits import Client
from pipeline.models import ModelFile
from pipeline.networks import LoraNames
from pipeline.networks.file import read_object
from pipeline.samplers import SAMPLERS, SCHEDULES, SamplerRow, Schedule
from pipeline.upscaling import UPSCALERS
from pipeline.worker import EmbeddingInfo

router = APIRouter(tags=["lists"], route_class=StrictRoute)

UPSCALER_SCALE = 4.0
"""A1111's value, also for upscalers that take any scale and whatever a file's own factor is."""
SCALES = {"R-ESRGAN 2x+": 2.0, "DAT x2": 2.0, "DAT x3": 3.0}
"""The upscalers for which A1111 has another."""


@router.get("/sdapi/v1/samplers")
async def samplers() -> list[SamplerItem]:
    """The samplers, with their own settings."""
    return [SamplerItem(name=row.name, aliases=list(row.aliases), options=sampler_options(row)) for row in SAMPLERS.values()]


def sampler_options(row: SamplerRow) -> dict[str, str]:
    """A sampler's special features under A1111's names, as text."""
    said = {"scheduler": row.scheduler, "uses_ensd": row.uses_ensd,
            "discard_next_to_last_sigma": row.discard_next_to_last_sigma,
            "second_order": row.second_order, "brownian_noise": row.brownian, "solver_type": row.solver_type}
    return {name: str(value) for name, value in said.items() if value}


@router.get("/sdapi/v1/schedulers")
async def schedulers() -> list[SchedulerItem]:
    """The noise schedules."""
    return [scheduler_item(schedule) for schedule in SCHEDULES.values()]


def scheduler_item(schedule: Schedule) -> SchedulerItem:
    return SchedulerItem(name=schedule.name, label=schedule.label, aliases=list(schedule.aliases) or None,
                         default_rho=schedule.default_rho, need_inner_model=schedule.need_inner_model)


@router.get("/sdapi/v1/upscalers")
async def upscalers(here: Here, who: Who) -> list[UpscalerItem]:
    """Methods for enlarging pictures; those with a model_path are networks."""
    networks = await to_thread.run_sync(here.upscalers.networks)
    return [*(UpscalerItem(name=name, model_name=None, model_path=None, model_url=None, scale=UPSCALER_SCALE) for name in UPSCALERS),
            *(UpscalerItem(name=name, model_name=file.stem, model_path=shown(file.path, who), model_url=None,
                           scale=SCALES.get(name, UPSCALER_SCALE)) for name, file in networks.items())]


@router.get("/sdapi/v1/latent-upscale-modes")
async def latent_upscale_modes() -> list[Named]:
    """Ways of enlarging a latent, for hires fix."""
    return [Named(name=name) for name in LATENT_UPSCALERS]


# --- models

@router.get("/sdapi/v1/sd-models")
async def sd_models(here: Here, who: Who) -> list[CheckpointItem]:
    """The checkpoints; unknown hashes are null."""
    return [checkpoint_item(file, who) for file in await to_thread.run_sync(here.models.catalog.checkpoints)]


def checkpoint_item(file: ModelFile, who: Client) -> CheckpointItem:
    config = file.path.with_suffix(".yaml")
    return CheckpointItem(title=file.title, model_name=file.name, hash=file.hash, sha256=file.sha256,
                          filename=shown(file.path, who), config=shown(config, who) if config.is_file() else None)


@router.get("/sdapi/v1/sd-vae")
async def sd_vae(here: Here, who: Who) -> list[VaeItem]:
    """The VAEs that can be chosen."""
    return [VaeItem(model_name=name, filename=shown(file.path, who))
            for name, file in await to_thread.run_sync(here.models.catalog.vae_names)]


@router.get("/sdapi/v1/loras")
async def loras(here: Here, who: Who) -> list[LoraItem]:
    """The LoRAs that prompts can name."""
    def listed() -> list[LoraItem]:
        names = LoraNames(here.models.catalog)
        return [lora_item(file, name, alias, names.metadata(file), who) for file, name, alias in names.listed()]
    return await to_thread.run_sync(listed, limiter=here.pictures)


def lora_item(file: ModelFile, name: str, alias: str, metadata: Mapping[str, str], who: Client) -> LoraItem:
    """A LoRA with the metadata in its file, empty if unreadable."""
    return LoraItem(name=name, alias=alias, path=shown(file.path, who),
                    metadata={key: unpacked(value) for key, value in metadata.items()})


def unpacked(value: str) -> Any:
    """A metadata text that holds a JSON object, as that object unless it is nested too deeply for an answer."""
    found = read_object(value)
    try:
        TypeAdapter(Any).dump_json(found)
    except ValueError:
        return value
    return value if found is None else found


@router.get("/sdapi/v1/embeddings")
async def embeddings(here: Here) -> EmbeddingsAnswer:
    """The textual inversion embeddings for prompts, and the files that cannot be used."""
    fitting, skipped = await to_thread.run_sync(here.engine.embeddings, limiter=here.pictures)
    blank = EmbeddingItem(step=None, sd_checkpoint=None, sd_checkpoint_name=None, shape=0, vectors=0)
    return EmbeddingsAnswer(loaded={embedding.name: embedding_item(embedding) for embedding in fitting},
                            skipped=dict.fromkeys(skipped, blank))


def embedding_item(embedding: EmbeddingInfo) -> EmbeddingItem:
    return EmbeddingItem(step=embedding.step, sd_checkpoint=embedding.sd_checkpoint,
                         sd_checkpoint_name=embedding.sd_checkpoint_name,
                         shape=embedding.width, vectors=embedding.vectors)


@router.post("/sdapi/v1/refresh-checkpoints")
@router.post("/sdapi/v1/refresh-vae")
@router.post("/sdapi/v1/refresh-loras")
@router.post("/sdapi/v1/refresh-embeddings")
async def refresh(here: Here) -> None:
    """Scan the models folder again."""
    await to_thread.run_sync(here.models.catalog.refresh)


@router.post("/sdapi/v1/unload-checkpoint")
async def unload_checkpoint(here: Here) -> dict:
    """Drop the loaded models; the next request loads its own again."""
    await to_thread.run_sync(here.engine.release)
    return {}


@router.post("/sdapi/v1/reload-checkpoint")
async def reload_checkpoint(here: Here) -> dict:
    """Load the chosen model again; while pictures are being made, this is left to the next one."""
    if not here.engine.jobs():
        await wait_for(here.engine.preload())
    return {}


# --- styles, scripts and absent features

@router.get("/sdapi/v1/prompt-styles")
async def prompt_styles(here: Here) -> list[StyleItem]:
    """The prompt styles."""
    return [StyleItem(name=style.name, prompt=style.prompt, negative_prompt=style.negative_prompt)
            for style in here.engine.styles.styles.values()]


@router.get("/sdapi/v1/scripts")
async def scripts() -> ScriptsAnswer:
    """The scripts that requests can name."""
    return titles()


@router.get("/sdapi/v1/script-info")
async def script_info(here: Here) -> list[ScriptItem]:
    """The scripts with their arguments."""
    return descriptions(await to_thread.run_sync(here.upscalers.names))


@router.get("/sdapi/v1/extensions")
async def extensions() -> list[ExtensionItem]:
    """A1111's extensions: none."""
    return []


@router.get("/sdapi/v1/hypernetworks")
async def hypernetworks() -> list[PathItem]:
    """Hypernetworks: none."""
    return []


@router.get("/sdapi/v1/face-restorers")
async def face_restorers() -> list[FaceRestorerItem]:
    """Face restoration models: none."""
    return []


@router.get("/sdapi/v1/realesrgan-models")
async def realesrgan_models(here: Here, who: Who) -> list[RealesrganItem]:
    """The networks that A1111 calls R-ESRGAN."""
    networks = await to_thread.run_sync(here.upscalers.networks)
    return [RealesrganItem(name=name, path=shown(file.path, who), scale=int(SCALES.get(name, UPSCALER_SCALE)))
            for name, file in networks.items() if name.startswith("R-ESRGAN")]


# --- the program and its machine

@router.get("/sdapi/v1/cmd-flags")
async def cmd_flags(here: Here) -> dict[str, Any]:
    """The program's flags, without passwords."""
    return dict(here.flags)


@router.get("/sdapi/v1/memory")
async def memory(here: Here) -> MemoryAnswer:
    """Free and used memory, in bytes."""
    return await to_thread.run_sync(lambda: MemoryAnswer(**here.engine.memory()))


@router.get("/sdapi/v1/memory-plan")
async def memory_plan(here: Here, sd_model_checkpoint: str | None = None) -> MemoryPlanAnswer:
    """Where a model's weights are, or will be once it is loaded, from its files' headers; an addition to A1111.

    sd_model_checkpoint: its name; otherwise the chosen model. A model that does not fit is refused with numbers.
    """
    chosen = {} if sd_model_checkpoint is None else {"sd_model_checkpoint": sd_model_checkpoint}
    plan = await to_thread.run_sync(here.engine.plan, here.engine.options.override(chosen), limiter=here.pictures)
    return MemoryPlanAnswer(offload=plan.offload, device=plan.place, on_device=plan.on_device, in_main_memory=plan.waiting, needed=plan.peak,
                            free=plan.free, line=plan.line)


@router.get("/sdapi/v1/workers")
async def workers(here: Here) -> list[WorkerItem]:
    """What each worker does; an addition to A1111."""
    return [WorkerItem(**asdict(worker)) for worker in here.engine.workers()]


@router.post("/sdapi/v1/workers")
async def put_in_service(body: ServiceRequest, here: Here) -> list[WorkerItem]:
    """Put a worker in service or out of it; an addition to A1111."""
    here.engine.put_in_service(body.name, body.in_service)
    return await workers(here)
