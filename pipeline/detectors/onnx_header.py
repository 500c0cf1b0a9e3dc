"""What an ONNX file says about itself, read without the onnx package: its outputs, its input's size, and its metadata.

Only the fields that are needed are parsed, by their numbers in onnx.proto; weights are skipped.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ModelError
from pipeline.geometry import Size

GRAPH, METADATA = 7, 14  # of ModelProto
INPUT, OUTPUT, INITIALIZER = 11, 12, 5  # of GraphProto
INITIALIZER_NAME = 8  # of TensorProto
NAME, TYPE, TENSOR_TYPE, SHAPE, DIMENSION, DIMENSION_VALUE = 1, 2, 1, 2, 1, 1  # of ValueInfoProto and below
LENGTH_DELIMITED = 2
FIXED = {1: 8, 5: 4}
"""Wire type → bytes."""


@dataclass(frozen=True)
class Header:
    """What an ONNX file says about itself."""

    outputs: tuple[str, ...]
    size: Size | None
    """The picture's size that its input (1, 3, h, w) is fixed to; None: it is not."""
    metadata: dict[str, str]

    def classes(self) -> tuple[str, ...]:
        """The names in the metadata of a YOLO export, such as {0: 'face'}; empty if there are none."""
        try:
            names = ast.literal_eval(self.metadata.get("names", "{}"))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return ()
        if isinstance(names, dict):
            names = [names[index] for index in sorted(names)] if all(isinstance(index, int) for index in names) else []
        return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def read_header(content: bytes) -> Header:
    """The header of an ONNX file. Raises ModelError."""
    try:
        graph, metadata = b"", {}
        for number, value in parts(content):
            if number == GRAPH:
                graph = value
            elif number == METADATA:
                pair = dict(parts(value))
                metadata[text(pair.get(1, b""))] = text(pair.get(2, b""))
        inputs, outputs, weights = [], [], set()
        for number, value in parts(graph):
            if number == INPUT:
                inputs.append(value)
            elif number == OUTPUT:
                outputs.append(text(dict(parts(value)).get(NAME, b"")))
            elif number == INITIALIZER:
                weights.add(text(dict(parts(value)).get(INITIALIZER_NAME, b"")))
        # older files list their weights among the inputs too
        pictures = [value for value in inputs if text(dict(parts(value)).get(NAME, b"")) not in weights]
        size = None if not pictures else size_of(pictures[0])
    except (ValueError, IndexError) as error:
        raise ModelError("it is not a readable ONNX file") from error
    if not outputs:
        raise ModelError("it is not an ONNX file with a network")
    return Header(tuple(outputs), size, metadata)


def size_of(value_info: memoryview | bytes) -> Size | None:
    """The size that an input's declaration fixes."""
    shape = value_info
    for number in (TYPE, TENSOR_TYPE, SHAPE):
        shape = dict(parts(shape)).get(number, b"")
    sides = [dict(parts(value)).get(DIMENSION_VALUE) for number, value in parts(shape) if number == DIMENSION]
    if len(sides) != 4 or not all(isinstance(side, int) and 0 < side < 1 << 14 for side in sides[2:]):
        return None
    return Size(sides[3], sides[2])


def text(value: object) -> str:
    return bytes(value).decode("utf-8") if isinstance(value, bytes | memoryview) else ""


def parts(message: memoryview | bytes) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of each field of a protobuf message. Raises ValueError or IndexError if it is damaged."""
    message, at = memoryview(message), 0
    while at < len(message):
        tag, at = varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = varint(message, at)
            yield number, value
            continue
        if wire == LENGTH_DELIMITED:
            length, at = varint(message, at)
        elif wire in FIXED:
            length = FIXED[wire]
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > len(message):
            raise ValueError("it ends early")
        yield number, message[at:at + length]
        at += length


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """(the number there, the place after it)."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")
