"""The tab Workers: what each worker does, and which of them take jobs."""

from html import escape

import gradio as gr

from pipeline.engine import Engine
from pipeline.worker import WorkerState
from ui.events import QUEUED

HEADINGS = ("Device", "Model in memory", "Now", "Pictures a minute")


def build_workers(tab: gr.Tab, engine: Engine) -> None:
    """Lay out and wire the tab, which is open."""
    with gr.Row(elem_classes="with-refresh"):
        gr.Markdown("Jobs go to a worker that has their model in memory, and otherwise to the one expected to be done soonest.")
        refresh = gr.Button("Refresh", scale=0, min_width=120, elem_id="workers-refresh")
    table = gr.HTML(elem_id="workers")
    names = [worker.name for worker in engine.workers()]
    service = gr.CheckboxGroup(names, value=names, label="In service", info="One that is put out of service finishes its job first.",
                               elem_id="workers-service")

    def shown() -> tuple[str, list[str]]:
        workers = engine.workers()
        return table_of(workers), [worker.name for worker in workers if worker.in_service]

    def put(wanted: list[str]) -> tuple[str, list[str]]:
        for name in names:
            engine.put_in_service(name, name in wanted)
        return shown()

    gr.on([tab.select, refresh.click], shown, None, [table, service], **QUEUED)
    service.input(put, service, [table, service], **QUEUED)


def table_of(workers: list[WorkerState]) -> str:
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells_of(worker))}</tr>" for worker in workers)
    return f"<table><thead><tr>{''.join(f'<th>{heading}</th>' for heading in HEADINGS)}</tr></thead><tbody>{rows}</tbody></table>"


def cells_of(worker: WorkerState) -> tuple[str, ...]:
    """A worker's row, in the order of HEADINGS."""
    rate = f"{worker.pictures_per_minute:g}" if worker.pictures_per_minute else "–"
    return worker.name, worker.model or "–", does(worker), rate


def does(worker: WorkerState) -> str:
    """What it does, in a few words."""
    if worker.loading:
        return "loads a model"
    if worker.job is not None:
        return "makes pictures" if worker.in_service else "makes its last pictures"
    return "waits" if worker.in_service else "out of service"
