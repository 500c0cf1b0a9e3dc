"""Progress of jobs, and stopping them: the running one, as in A1111, or one by id."""

from anyio import to_thread
from fastapi import APIRouter, Query

from api.backend import Backend, Here
from api.convert import timestamp
from api.models import PageProgressAnswer, PageProgressRequest, PendingTasks, ProgressAnswer, State
from api.pictures import encode_picture
from api.strict import StrictRoute
from api.visitors import Who, job_of
from pipeline.engine import Engine
from pipeline.job import Job, Queued, Step
from pipeline.previews import unpack

router = APIRouter(tags=["progress"], route_class=StrictRoute)

IdTask = Query(None, description="The job's id; null: the running job.")
BEGUN = 0.01
"""A1111's progress of a job that has just started."""
IDLE = State(skipped=False, interrupted=False, stopping_generation=False, job="", job_count=0, job_timestamp="0", job_no=0,
             sampling_step=0, sampling_steps=0)


@router.get("/sdapi/v1/progress")
async def progress(here: Here, who: Who, skip_current_image: bool = Query(False, description="Leave the preview out."),
                   id_task: str | None = IdTask) -> ProgressAnswer:
    """The progress of the running job, or of one by id."""
    return await progress_answer(job_of(who, here.engine, id_task), here, with_image=not skip_current_image, id_task=id_task)


@router.post("/sdapi/v1/interrupt")
async def interrupt(here: Here, who: Who, id_task: str | None = IdTask) -> dict:
    """End the running job, or one by id, and keep the picture so far; a waiting one is dropped."""
    if (job := job_of(who, here.engine, id_task)) is not None:
        here.engine.interrupt(job.id)
    return {}


@router.post("/sdapi/v1/skip")
async def skip(here: Here, who: Who, id_task: str | None = IdTask) -> None:
    """End the current batch, keep its picture so far, and go on with the next."""
    if (job := job_of(who, here.engine, id_task)) is not None:
        here.engine.skip(job.id)


@router.get("/internal/ping")
async def ping() -> dict:
    """Answers if the server is up."""
    return {}


@router.get("/internal/pending-tasks")
async def pending_tasks(here: Here) -> PendingTasks:
    """The waiting jobs."""
    tasks = [job.id for job in here.engine.jobs() if job.state == "queued"]
    return PendingTasks(size=len(tasks), tasks=tasks)


@router.post("/internal/progress")
async def page_progress(body: PageProgressRequest, here: Here, who: Who) -> PageProgressAnswer:
    """The progress of one job, in the form of A1111's page."""
    job = None if body.id_task is None else job_of(who, here.engine, body.id_task)
    event = None if job is None else job.newest()[1]
    if not isinstance(event, Step):
        return PageProgressAnswer(active=False, queued=job is not None,
                                  completed=job is None and is_done(here.engine, body.id_task), id_live_preview=-1,
                                  textinfo="Waiting..." if job is None else in_line(here.engine, job))
    number = event.batch * 10_000 + event.step
    shown = event.preview is not None and body.live_preview and number != body.id_live_preview
    form = here.settings.options.live_previews_image_format
    picture = await to_thread.run_sync(encode_picture, unpack(event.preview), form, limiter=here.pictures) if shown else None
    return PageProgressAnswer(
        active=True, queued=False, completed=False, progress=min(event.fraction, 1.0), eta=event.eta, textinfo=None,
        live_preview=picture and f"data:image/{form};base64,{picture}",
        id_live_preview=number if shown else body.id_live_preview)


async def progress_answer(job: Job | None, here: Backend, *, with_image: bool, id_task: str | None = None) -> ProgressAnswer:
    """The answer of GET progress for a job; None: no job."""
    event = None if job is None else job.newest()[1]
    if isinstance(event, Step):
        picture = event.preview if with_image else None
        form = here.settings.options.live_previews_image_format
        image = None if picture is None else await to_thread.run_sync(encode_picture, unpack(picture), form, limiter=here.pictures)
        return ProgressAnswer(progress=min(BEGUN + event.fraction, 1.0), eta_relative=event.eta, state=state_of(job, event),
                              current_image=image, textinfo=None)
    if isinstance(event, Queued):
        return ProgressAnswer(progress=0.0, eta_relative=0.0, state=waiting(job), current_image=None,
                              textinfo=in_line(here.engine, job))
    done = id_task is not None and is_done(here.engine, id_task)
    return ProgressAnswer(progress=1.0 if done else 0.0, eta_relative=0.0, state=IDLE, current_image=None,
                          textinfo="Finished" if done else None)


def state_of(job: Job, event: Step) -> State:
    return State(skipped=job.skipped, interrupted=job.interrupted,
                 stopping_generation=job.stopped and not job.interrupted, job=job.id, job_count=event.batches,
                 job_timestamp=timestamp(event.elapsed), job_no=min(event.batch - 1, event.batches), sampling_step=event.step,
                 sampling_steps=event.steps)


def waiting(job: Job) -> State:
    """For a job that waits for its turn or its model; A1111 reports -1 batches for one not set up yet."""
    return IDLE.model_copy(update={"job": job.id, "job_count": -1})


def in_line(engine: Engine, job: Job) -> str:
    """A place in the queue in A1111's words, or what the job waits for."""
    event = job.newest()[1]
    if job.state == "running" or (isinstance(event, Queued) and event.place == 0 and event.loading):
        return f"Loading the model: {event.fraction:.0%}" if isinstance(event, Queued) else "Starting"
    queue = [waiting for waiting in engine.jobs() if waiting.state == "queued"]
    return f"In queue: {queue.index(job) + 1 if job in queue else 1}/{max(len(queue), 1)}"


def is_done(engine: Engine, job_id: str | None) -> bool:
    return job_id in engine.finished
