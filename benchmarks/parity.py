"""How closely Palimpsest reproduces A1111's pictures: python -m benchmarks parity [--goldens FOLDER] [--only REGEX] [--misses]

Without a folder it runs the cases of tests/golden, where the UNet and the VAE are recordings and everything around them is
computed. With a folder of the same layout and whole checkpoints in FOLDER/models, it starts its own server in float32 on the
CPU and computes everything. A case is within the bar if status, number and sizes of pictures are A1111's, the mean absolute
difference is at most 0.5/255 and its 99.9th percentile at most 3/255; if A1111 failed or the request was invalid, a 4xx
answer is right. Infotext is compared by keys and values, except Version.
"""

import argparse
import base64
import io
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from pipeline.infotext import split

ROOT = Path(__file__).parents[1]
COMPACT = ROOT / "tests" / "golden"
MEAN, P999 = 0.5, 3.0
"""The bar, of 255."""
GROUPS = (  # the first whose pattern a case's name matches
    ("refusals", "bad_"),
    ("scripts", "script_|.*_loopback"),
    ("soft inpainting", "mask_soft"),
    ("samplers", "sampler_|mask_sampler|lcm"),
    ("schedules", "sched_|rho_|discard|uniform_"),
    ("SDXL", "sdxl_"),
    ("inpainting models", "ipm_"),
    ("InstructPix2Pix", "ip2p_"),
    ("v-prediction", "v_"),
    ("masks", "mask_"),
    ("resizing and files", "resize|init_|size_|data_uri|upscaler|jpg"),
    ("prompts", "prompt_|neg_|emphasis|styles|comma|comments|clip_skip|pad_|old_|minimal"),
    ("LoRA", "lora_"),
    ("embeddings", "ti_"),
    ("noise and seeds", "randn|seed|subseed|ensd|noise|eta|s_|batch2|niter2|extra_noise"),
    ("infotext", "infotext"),
    ("others", ""),
)

Post = Callable[[str, str, dict[str, Any]], Any]
"""(case, checkpoint, body) → an HTTP response."""


@dataclass(frozen=True)
class Case:
    """A request and A1111's answer."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def group(self) -> str:
        return next(group for group, pattern in GROUPS if re.match(pattern, self.name))

    @property
    def request(self) -> dict[str, Any]:
        return json.loads((self.folder / "request.json").read_text("utf-8"))

    @property
    def response(self) -> dict[str, Any]:
        return json.loads((self.folder / "response.json").read_text("utf-8"))

    @property
    def body(self) -> dict[str, Any]:
        """The body to post, with file names replaced by the pictures beside the request or in the folder `inputs`."""
        body = dict(self.request["body"])
        if isinstance(body.get("init_images"), list):
            body["init_images"] = [self._wire(value) for value in body["init_images"]]
        if isinstance(body.get("mask"), str):
            body["mask"] = self._wire(body["mask"])
        return body

    def input(self, name: str) -> Path:
        """The file of a picture named in the request."""
        beside = self.folder / name
        return beside if beside.is_file() else self.folder.parents[1] / "inputs" / name

    def _wire(self, value: Any) -> Any:
        if not isinstance(value, str) or value.startswith("raw:"):
            return value.removeprefix("raw:") if isinstance(value, str) else value
        name = value.removeprefix("datauri:")
        text = base64.b64encode(self.input(name).read_bytes()).decode()
        return text if name == value else f"data:image/png;base64,{text}"


@dataclass(frozen=True)
class Verdict:
    """How an answer compares with A1111's."""

    case: Case
    within: bool
    why: str = ""
    mean: float | None = None
    p999: float | None = None
    infotext: bool | None = None


def read_cases(goldens: Path, only: str = "") -> list[Case]:
    """The cases of a folder, grouped by checkpoint."""
    cases = [Case(path.parent) for path in sorted(goldens.glob("cases/*/request.json")) if re.search(only, path.parent.name)]
    return sorted(cases, key=lambda case: case.request["checkpoint"])


def judge(case: Case, status: int, answer: dict[str, Any]) -> Verdict:
    """answer: the JSON of the response."""
    expected = case.response
    wanted, refused = expected["status"], 400 <= status < 500
    if wanted != 200 or (case.name.startswith("bad_") and refused):
        right = refused or status == wanted < 500
        return Verdict(case, right, "" if right else f"status {status}, A1111 answered {wanted}")
    if status != 200:
        return Verdict(case, False, f"status {status}: {str(answer)[:200]}")
    ours = [Image.open(io.BytesIO(base64.b64decode(text))) for text in answer["images"]]
    theirs = [Image.open(case.folder / name) for name in expected["outputs"]]
    if [image.size for image in ours] != [image.size for image in theirs]:
        return Verdict(case, False, f"sizes {[image.size for image in ours]}, A1111's {[image.size for image in theirs]}")
    differences = [difference(*pair) for pair in zip(ours, theirs)] or [(0.0, 0.0)]
    mean, p999 = max(mean for mean, _ in differences), max(p999 for _, p999 in differences)
    texts = [[parameters(text) for text in texts] for texts in
             (json.loads(answer["info"])["infotexts"], expected["response"]["info"]["infotexts"])]
    within = mean <= MEAN and p999 <= P999
    return Verdict(case, within, "" if within else f"mean {mean:.2f}, p99.9 {p999:.0f}", mean, p999, texts[0] == texts[1])


def difference(ours: Image.Image, theirs: Image.Image) -> tuple[float, float]:
    """The mean and the 99.9th percentile of the absolute difference, of 255."""
    mode = "RGBA" if "A" in theirs.mode else "RGB"
    apart = np.abs(np.subtract(*(np.asarray(image.convert(mode), np.int16) for image in (ours, theirs))))
    return float(apart.mean()), float(np.percentile(apart, 99.9))


def parameters(text: str) -> dict[str, str]:
    return {key: value for key, value in split(text)[2].items() if key != "Version"}


# --- running

def compact(cases: list[Case]) -> list[Verdict]:
    """The cases of tests/golden, in this process."""
    from tests.golden.replay import Replay

    with tempfile.TemporaryDirectory() as outputs, Replay(COMPACT).running(Path(outputs)) as replay:
        return run(cases, replay.post)


def whole(goldens: Path, cases: list[Case]) -> list[Verdict]:
    """The cases of a folder with whole checkpoints, on a server of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        styles = goldens / "get" / "prompt-styles.json"
        write_styles(Path(folder) / "styles.csv", json.loads(styles.read_text("utf-8")) if styles.exists() else [])
        flags = {"port": port, "device": "cpu", "precision": "float32", "models-dir": goldens / "models",
                 "outputs-dir": folder, "settings-file": f"{folder}/config.json", "styles-file": f"{folder}/styles.csv"}
        command = [sys.executable, "app.py", "--no-browser", *(f"--{name}={value}" for name, value in flags.items())]
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
                wait_for(client, server)
                return run(cases, Remote(client).post)
        finally:
            server.terminate()
            server.wait(30)


class Remote:
    """A server, told of each change of checkpoint."""

    def __init__(self, client: httpx.Client):
        self._client, self._checkpoint = client, None

    def post(self, case: str, checkpoint: str, body: dict[str, Any]) -> httpx.Response:
        if checkpoint != self._checkpoint:
            self._client.post("/sdapi/v1/options", json={"sd_model_checkpoint": checkpoint}).raise_for_status()
            self._checkpoint = checkpoint
        return self._client.post("/sdapi/v1/img2img", json=body)


def wait_for(client: httpx.Client, server: subprocess.Popen) -> None:
    while True:
        try:
            client.get("/sdapi/v1/options").raise_for_status()
            return
        except httpx.HTTPError:
            if server.poll() is not None:
                raise SystemExit("the server did not start") from None
            time.sleep(0.5)


def write_styles(path: Path, styles: list[dict[str, str]]) -> None:
    from pipeline.styles import Style
    from pipeline.styles import write_styles as write

    write(path, [Style(style["name"], style["prompt"], style["negative_prompt"]) for style in styles])


def run(cases: list[Case], post: Post) -> list[Verdict]:
    verdicts = []
    for number, case in enumerate(cases, 1):
        print(f"\r{number} of {len(cases)}", end="" if number < len(cases) else "\n", file=sys.stderr, flush=True)
        response = post(case.name, case.request["checkpoint"], case.body)
        verdicts.append(judge(case, response.status_code, response.json()))
    return verdicts


# --- the table

def table(verdicts: Iterable[Verdict]) -> str:
    """A row per group, and the totals."""
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.case.group].append(verdict)
    rows = [row(name, groups[name]) for name, _ in GROUPS if name in groups]
    rows.append(row("all", [verdict for group in groups.values() for verdict in group]))
    head = f"{'group':<20}{'cases':>6}{'within':>8}{'worst mean':>12}{'worst p99.9':>13}{'infotext':>12}"
    return "\n".join([head, *rows])


def row(name: str, verdicts: list[Verdict]) -> str:
    means, peaks = ([value for v in verdicts if (value := getattr(v, field)) is not None] for field in ("mean", "p999"))
    texts = [verdict.infotext for verdict in verdicts if verdict.infotext is not None]
    worst = f"{max(means):>12.3f}{max(peaks):>13.1f}" if means else f"{'-':>12}{'-':>13}"
    equal = f"{sum(texts)} of {len(texts)}" if texts else "-"
    return f"{name:<20}{len(verdicts):>6}{sum(v.within for v in verdicts):>8}{worst}{equal:>12}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goldens", type=Path, help="a folder with cases, inputs and models")
    parser.add_argument("--only", default="", help="regular expression on the cases' names")
    parser.add_argument("--misses", action="store_true", help="list cases outside the bar or with different infotext")
    flags = parser.parse_args()
    cases = read_cases(flags.goldens or COMPACT, flags.only)
    if not cases:
        sys.exit("no case matches")
    verdicts = compact(cases) if flags.goldens is None else whole(flags.goldens.resolve(), cases)
    print(table(verdicts))
    for verdict in verdicts if flags.misses else ():
        if not verdict.within or verdict.infotext is False:
            print(f"{verdict.case.name}: {verdict.why or 'its infotext differs'}")
    if flags.goldens is None:
        print("UNet and VAE were recordings; see tests/golden/README.md.")


if __name__ == "__main__":
    main()
