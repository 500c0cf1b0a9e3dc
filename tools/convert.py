"""Convert pickled checkpoints, VAEs, LoRAs, embeddings and upscalers to safetensors: `python -m tools.convert FILE`.

Reading a pickle can run code, so torch's weights-only reader reads it, in a separate process with bounded memory and time.
Only tensors are kept.
"""

import argparse
import base64
import binascii
import hashlib
import json
import multiprocessing
import os
import pickle
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import torch
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pipeline.errors import PalimpsestError
from pipeline.weights import PICKLES

PICTURES = (".png",)
"""A1111 can store an embedding in a picture."""
PICTURE_TEXT = "sd-ti-embedding"
TIMEOUT = 1800.0
"""Seconds."""
SPARE_MEMORY = 2 << 30
"""Bytes that reading may take in addition to several times the file's size."""

BYSTANDERS = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy.", "argparse.Namespace",
              "pathlib.", "_codecs.encode", "torch.nn.modules.container.ParameterDict")
"""Other objects that trainers leave in pickles. None is imported: a Bystander takes its place."""
WRAPPINGS = ("state_dict", "params_ema", "params")
"""Under which names trainers put the weights: Lightning's, and BasicSR's for upscalers, whose averaged ones come first."""
UNKNOWN_GLOBAL = re.compile(r"GLOBAL (\S+) (?:was not an allowed global|whose module)")
"""How torch's weights-only reader names what it refuses to load."""


class ConvertError(PalimpsestError):
    """A file that cannot be converted."""


class Bystander:
    """Replaces an object of an unwanted class, and does nothing."""

    def __new__(cls, *_args):
        return super().__new__(cls)

    def __init__(self, *_args):
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state


@dataclass(frozen=True)
class Report:
    """The result of a conversion."""

    output: Path
    tensors: int
    left_out: list[str]
    """Names of entries that are not tensors."""


def convert(source: Path, output: Path | None = None, *, force: bool = False, timeout: float = TIMEOUT) -> Report:
    """Write a pickle's tensors as safetensors, by default beside it, atomically.

    Raises ConvertError with one sentence. The source is left unchanged.
    """
    output = output or source.with_suffix(".safetensors")
    check_paths(source, output, force=force)
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        answer = run_apart(source, part, timeout)
        os.replace(part, output)
    except OSError as error:
        raise ConvertError(f'"{output}" cannot be written: {error.strerror or error}') from error
    finally:
        part.unlink(missing_ok=True)
    return Report(output, answer["tensors"], answer["left_out"])


def check_paths(source: Path, output: Path, *, force: bool) -> None:
    if not source.is_file():
        raise ConvertError(f'"{source}" does not exist, or is not a file')
    if source.suffix.lower() not in (*PICKLES, *PICTURES, ".safetensors"):
        raise ConvertError(f'"{source}" is not named like a pickle; valid: {", ".join((*PICKLES, *PICTURES))}')
    if output.suffix != ".safetensors":
        raise ConvertError(f'"{output}" must end in .safetensors')
    if output.exists() and (not force or output.samefile(source)):
        raise ConvertError(f'"{output}" exists already; ' + (
            "choose another --output" if output.samefile(source) else "--force overwrites it"))


def run_apart(source: Path, part: Path, timeout: float) -> dict:
    """The answer of write_safetensors(), run in a separate process."""
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=answer_with_json, args=(source, part, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the process's end is noticed
    try:
        if not ours.poll(timeout):
            raise ConvertError(f'"{source}" could not be read within {timeout:.0f} seconds')
        answer = json.loads(ours.recv_bytes())
    except EOFError:
        process.join()
        raise ConvertError(f'"{source}" could not be read: the process that read it ended with code {process.exitcode}, '
                           "perhaps out of memory") from None
    finally:
        process.kill()
        process.join()
    if "error" in answer:
        raise ConvertError(answer["error"])
    return answer


# --- in the separate process

def answer_with_json(source: Path, part: Path, answers: Connection) -> None:
    """Send {"tensors", "left_out"} or {"error"}: as JSON, since the parent must not unpickle anything from this process."""
    limit_memory(source.stat().st_size)
    try:
        answer = write_safetensors(source, part)
    except ConvertError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": f'"{source}" takes more memory than a file of its size should'}
    except (OSError, SafetensorError) as error:
        answer = {"error": f'"{part.parent}" cannot be written to: {getattr(error, "strerror", None) or error}'}
    answers.send_bytes(json.dumps(answer).encode())


def limit_memory(file_size: int) -> None:
    """Limit this process to a few times the file's size, where the system supports it (Linux)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        import resource

        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        limit = now + 6 * file_size + SPARE_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def write_safetensors(source: Path, part: Path) -> dict:
    """Convert the source. Raises ConvertError."""
    data = read_picture(source) if source.suffix.lower() in PICTURES else read_pickle(source)
    if not isinstance(data, Mapping):
        raise ConvertError(f'"{source}" holds a {type(data).__name__} instead of named tensors')
    embedding = "string_to_param" in data
    tensors, left_out = only_embedding(source, data) if embedding else all_tensors(source, data)
    check_sizes(source, tensors)
    part.touch()
    mode = part.stat().st_mode  # the user's normal mode; save_file makes files readable by the owner only
    save_file(with_own_memory(tensors), part, facts(source, data, tensors))
    part.chmod(mode)
    return {"tensors": len(tensors), "left_out": left_out}


def read_pickle(source: Path) -> Any:
    """The result of torch.load with weights_only, with a Bystander for each object of a class in BYSTANDERS."""
    known: set[str] = set()
    while True:
        allowed = [(type("Bystander", (Bystander,), {}), name) for name in known]
        try:
            with torch.serialization.safe_globals(allowed), warnings.catch_warnings(), source.open("rb") as file:
                warnings.simplefilter("ignore")
                by_name = source.suffix.lower() in PICKLES and is_zip(file)  # another extension means another format
                return torch.load(source if by_name else file, map_location="cpu", weights_only=True, mmap=by_name)
        except pickle.UnpicklingError as error:
            name = unknown_global(str(error))
            if name is None:
                raise ConvertError(f'"{source}" is damaged, or was not saved by torch') from error
            if not name.startswith(BYSTANDERS) or name in known:
                raise ConvertError(f'"{source}" was not read: it asks for {name}, which is not a tensor and could run code'
                                   ) from error
            known.add(name)
        except MemoryError:
            raise
        except Exception as error:  # a pickle is a program and can raise anything
            raise ConvertError(f'"{source}" is damaged, or was not saved by torch '
                               f"({next(iter(str(error).splitlines()), '') or type(error).__name__})") from error


def unknown_global(message: str) -> str | None:
    """The dotted name that torch's weights-only reader refused."""
    found = UNKNOWN_GLOBAL.search(message)
    return found and found[1]


def is_zip(file: BinaryIO) -> bool:
    """Whether torch saved it in its current (zip) format, which can be memory-mapped."""
    start = file.read(4)
    file.seek(0)
    return start == b"PK\x03\x04"


def read_picture(source: Path) -> dict:
    """The embedding in the text of A1111's PNG, as in a pickle."""
    try:
        with Image.open(source) as picture:
            text = picture.info[PICTURE_TEXT]
        data = json.loads(base64.b64decode(text, validate=True))
        params = {name: torch.tensor(value["TORCHTENSOR"]) for name, value in data["string_to_param"].items()}
    except KeyError as error:
        raise ConvertError(f'"{source}" holds no readable embedding: {error} is missing') from error
    except (OSError, UnidentifiedImageError, binascii.Error, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConvertError(f'"{source}" holds no readable embedding') from error
    return data | {"string_to_param": params}


def only_embedding(source: Path, data: Mapping) -> tuple[dict[str, Tensor], list[str]]:
    """An embedding's vectors from A1111's training, under A1111's name for them in safetensors."""
    params = data["string_to_param"]
    if isinstance(params, Bystander):  # a ParameterDict
        params = params.state.get("_parameters") if isinstance(params.state, Mapping) else None
    tensors = [value for value in params.values() if isinstance(value, Tensor)] if isinstance(params, Mapping) else []
    if len(tensors) != 1:
        raise ConvertError(f'"{source}" is not an embedding: string_to_param must hold one tensor, it holds {len(tensors)}')
    return {"emb_params": tensors[0]}, []


def all_tensors(source: Path, data: Mapping) -> tuple[dict[str, Tensor], list[str]]:
    """(all tensors by name, from the first of WRAPPINGS that there is; the names of everything else)."""
    outer = []
    wrapping = next((name for name in WRAPPINGS if isinstance(data.get(name), Mapping)), None)
    if wrapping is not None:
        outer, data = [str(name) for name in data if name != wrapping], data[wrapping]
    tensors = {name: value for name, value in data.items()
               if isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided}
    if not tensors:
        raise ConvertError(f'"{source}" holds no named tensors')
    return tensors, [*outer, *(str(name) for name in data if name not in tensors)]


def check_sizes(source: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse tensors that are much larger than the file, as repeating views can be."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > 4 * source.stat().st_size:
        raise ConvertError(f'"{source}" was not converted: its tensors take {size} bytes of a {source.stat().st_size}-byte file')


def with_own_memory(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the form that safetensors needs: contiguous, without shared memory."""
    owners, result = set(), {}
    for name, tensor in tensors.items():
        tensor, storage = tensor.detach(), tensor.untyped_storage()
        shares = storage.data_ptr() in owners or storage.nbytes() != tensor.numel() * tensor.element_size()
        owners.add(storage.data_ptr())
        result[name] = tensor.clone(memory_format=torch.contiguous_format) if shares else tensor.contiguous()
    return result


def facts(source: Path, data: Mapping, tensors: dict[str, Tensor]) -> dict[str, str]:
    """The new file's metadata: facts about training, and the hash by which A1111 knows the source."""
    known = {name: str(data[name]) for name in ("name", "step", "sd_checkpoint", "sd_checkpoint_name")
             if isinstance(data.get(name), str | int)}
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    is_lora = any(name.startswith(("lora_unet_", "lora_te")) for name in tensors)
    return {"format": "pt", **known, "source": source.name, "source_sha256": digest} | (
        {"sshs_model_hash": digest} if is_lora else {})


# --- the command

def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.convert", description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, nargs="+", metavar="FILE", help=f"{', '.join(PICKLES)}, or a .png with an embedding")
    parser.add_argument("--output", type=Path, help="default: beside the file, as .safetensors")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    flags = parser.parse_args(argv)
    if flags.output and len(flags.file) > 1:
        parser.error("--output is for one FILE")
    failed = False
    for file in flags.file:
        try:
            report = convert(file, flags.output, force=flags.force)
        except ConvertError as error:
            failed = True
            print(f"{error}.", file=sys.stderr)
        else:
            print(f"{report.output}: tensors written: {report.tensors}" + described(report.left_out))
    return int(failed)


def described(left_out: list[str], shown: int = 8) -> str:
    """The first few names that were left out."""
    more = f" and {len(left_out) - shown} more" if len(left_out) > shown else ""
    return f"; left out: {', '.join(left_out[:shown])}{more}" if left_out else ""


if __name__ == "__main__":
    sys.exit(main())
