"""Record this folder's cases from goldens with whole checkpoints: python -m tests.golden.record FOLDER [NAME …]

Without names, existing cases are recorded again. Each case runs over the API with the whole models and must come within the
bar of A1111's pictures; the inputs and outputs of its UNet and VAE become its recording.
"""

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.parity import Case, judge, read_cases, write_styles
from pipeline import families
from pipeline.families import placement
from pipeline.families.cond import Cond
from pipeline.models import Catalog
from pipeline.options import Options
from tests.golden.replay import CHECKPOINTS, FOLDER, Tape, application, condition_questions, denoise_questions

TOKENS = "token_embedding.weight"


class RecordedModel:
    """A loaded model whose large networks are recorded."""

    def __init__(self, model: Any):
        self._model, self.tape = model, Tape()
        self.used: set[int] = {0}
        """Ids of words used in prompts."""
        for encoder in model.text_encoders:
            encoder.model.get_input_embeddings().register_forward_hook(self._note_words)

    def _note_words(self, module: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.used.update(args[0].flatten().tolist())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_image(self, pixels: Tensor) -> Tensor:
        answer = self._model.encode_image(pixels)
        self.tape.record("encode", {"pixels": pixels}, answer)
        return answer

    def image_conditioning(self, pixels: Tensor, latent: Tensor, mask: Tensor | None, *, mask_weight: float) -> Tensor:
        answer = self._model.image_conditioning(pixels, latent, mask, mask_weight=mask_weight)
        if self._model.sees != "nothing":
            self.tape.record("condition", condition_questions(pixels, mask, mask_weight), answer)
        return answer

    def denoise(self, x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> Tensor:
        answer = self._model.denoise(x, t, cond, image_cond)
        self.tape.record("denoise", denoise_questions(x, t, cond, image_cond), answer)
        return answer

    def decode(self, latent: Tensor) -> Tensor:
        answer = self._model.decode(latent)
        self.tape.record("decode", {"latent": latent}, answer)
        return answer


def record(goldens: Path, names: list[str]) -> None:
    catalog = Catalog(goldens / "models", cache=Path(tempfile.mkdtemp()) / "hashes.json")
    models = {name: read_model(catalog, name) for name in CHECKPOINTS}
    current = next(iter(models))

    def load(options: Options) -> RecordedModel:
        return models[catalog.find_checkpoint(options.sd_model_checkpoint or current).stem]

    copy_small(goldens)
    outputs = Path(tempfile.mkdtemp())
    with application(FOLDER / "models", load, catalog.find_checkpoint, FOLDER / "styles.csv", outputs) as client:
        for case in read_cases(goldens, f"^({'|'.join(names)})$"):
            current = case.request["checkpoint"]
            tape = Tape()
            for model in models.values():
                model.tape = tape
            response = client.post("/sdapi/v1/img2img", json=case.body)
            verdict = judge(case, response.status_code, response.json())
            print(f"{case.name}: {verdict.why or 'within'}, infotext {verdict.infotext}", flush=True)
            if verdict.within:
                write(case, tape, goldens)
    write_text_encoders(models)


def read_model(catalog: Catalog, name: str) -> RecordedModel:
    file = catalog.find_checkpoint(name)
    info = replace(families.describe(file.path), name=file.stem, hash=catalog.sha256(file)[:10])
    return RecordedModel(families.load(file.path, placement.choose("cpu", "float32"), info))


def copy_small(goldens: Path) -> None:
    """LoRAs, embeddings and styles."""
    for kind in ("Lora", "embeddings"):
        (FOLDER / "models" / kind).mkdir(parents=True, exist_ok=True)
        for path in (goldens / "models" / kind).glob("*.safetensors"):
            shutil.copyfile(path, FOLDER / "models" / kind / path.name)
    write_styles(FOLDER / "styles.csv", json.loads((goldens / "get" / "prompt-styles.json").read_text("utf-8")))


def write(case: Case, tape: Tape, goldens: Path) -> None:
    """Write the case to this folder, with pictures as lossless WebP."""
    folder = FOLDER / "cases" / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    expected, outputs = case.response, []
    for name in expected.get("outputs", []):
        outputs.append(Path(name).with_suffix(".webp").name)
        Image.open(case.folder / name).save(folder / outputs[-1], lossless=True, method=6, exact=True)
    kept = {"status": expected["status"], "outputs": outputs}
    if expected["status"] == 200:
        kept["response"] = {"info": {"infotexts": expected["response"]["info"]["infotexts"]}}
    (folder / "request.json").write_text(json.dumps(case.request, indent=1) + "\n", "utf-8")
    (folder / "response.json").write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    tape.save(folder / "networks.npz", [folder / name for name in outputs])
    body = case.request["body"]
    (FOLDER / "inputs").mkdir(exist_ok=True)
    for name in [*(body.get("init_images") or []), body.get("mask")]:
        path = case.input(str(name).removeprefix("datauri:"))
        if path.is_file():
            shutil.copyfile(path, FOLDER / "inputs" / path.name)


def write_text_encoders(models: dict[str, RecordedModel]) -> None:
    """Both text encoders in half precision, as in their files, with only the words that were used."""
    ids = torch.tensor(sorted(set().union(*(model.used for model in models.values()))))
    tensors = {"ids": ids}
    for part, name in (("text_encoder", "tiny-sd1"), ("text_encoder_2", "tiny-sdxl")):
        for key, tensor in models[name].modules[part].state_dict().items():
            kept = tensor[ids] if key.endswith(TOKENS) else tensor
            tensors[f"{part}.{'rows' if key.endswith(TOKENS) else key}"] = kept.half().contiguous()
    save_file(tensors, FOLDER / "text-encoders.safetensors")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    record(Path(sys.argv[1]).resolve(), sys.argv[2:] or [case.name for case in read_cases(FOLDER)])
