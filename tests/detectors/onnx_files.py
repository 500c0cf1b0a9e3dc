"""Tiny ONNX files written by hand: networks in the layouts of YOLOv8 and YuNet that find bright squares, so their answers are known."""

import numpy as np

FLOAT = 1
INT64 = 7


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value) -> bytes:
    """A protobuf field: a number, a text, or a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(name: str, array) -> bytes:
    array = np.asarray(array)
    kind = INT64 if array.dtype.kind == "i" else FLOAT
    data = array.astype(np.int64 if kind == INT64 else np.float32).tobytes()
    return b"".join(field(1, side) for side in array.shape) + field(2, kind) + field(8, name) + field(9, data)


def value(name: str, shape) -> bytes:
    dims = b"".join(field(1, field(1, side) if isinstance(side, int) else field(2, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, dims)))


def ints(name: str, values) -> bytes:
    return field(5, field(1, name) + b"".join(field(8, one) for one in values) + field(20, 7))


def axis(number: int) -> bytes:
    return field(5, field(1, "axis") + field(3, number) + field(20, 2))


def node(kind: str, inputs, output: str, attributes: bytes = b"") -> bytes:
    return b"".join(field(1, one) for one in inputs) + field(2, output) + field(3, f"{kind}_{output}") + field(4, kind) + attributes


def model(nodes, weights, picture, outputs, metadata=None) -> bytes:
    graph = b"".join(field(1, one) for one in nodes) + field(2, "net") + b"".join(field(5, one) for one in weights)
    graph += field(11, picture) + b"".join(field(12, one) for one in outputs)
    pairs = b"".join(field(14, field(1, key) + field(2, said)) for key, said in (metadata or {}).items())
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13)) + pairs


def mean_of(stride: int, channels, scale: float = 1.0) -> np.ndarray:
    """A convolution's weights: for each output, the mean of one colour over a cell."""
    weights = np.zeros((len(channels), 3, stride, stride), np.float32)
    for row, channel in enumerate(channels):
        weights[row, channel] = scale / stride**2
    return weights


def conv(weights: str, output: str, stride: int) -> bytes:
    return node("Conv", ["images", weights], output, ints("kernel_shape", [stride, stride]) + ints("strides", [stride, stride]))


def cells(side: int, stride: int) -> np.ndarray:
    """(1, 4, n): centre and size of each cell, row by row."""
    at = (np.arange(side // stride) + 0.5) * stride
    y, x = (grid.ravel() for grid in np.meshgrid(at, at, indexing="ij"))
    return np.stack([x, y, np.full_like(x, stride), np.full_like(x, stride)])[None].astype(np.float32)


def yolo(side: int = 64, stride: int = 16, names=("red", "green"), *, masks: bool = False, fixed: bool = True, said: str | None = None) -> bytes:
    """Finds cells of the grid that are red or green: confidence = the colour's mean in the cell.

    said: the classes in its metadata, if they are others. masks: a second output, with one prototype, above 0 where the picture is more than half red.
    """
    count = (side // stride) ** 2
    nodes = [conv("w", "scores", stride), node("Reshape", ["scores", "flat"], "rows"),
             node("Concat", ["boxes", "rows", *(["ones"] if masks else [])], "output0", axis(1))]
    weights = [tensor("w", mean_of(stride, range(len(names)))), tensor("flat", np.array([1, len(names), count])), tensor("boxes", cells(side, stride))]
    outputs = [value("output0", (1, 4 + len(names) + masks, count))]
    if masks:
        nodes += [conv("p", "means", 4), node("Add", ["means", "half"], "output1")]
        weights += [tensor("ones", np.ones((1, 1, count), np.float32)), tensor("p", mean_of(4, [0])), tensor("half", np.full((1, 1, 1, 1), -0.5, np.float32))]
        outputs.append(value("output1", (1, 1, side // 4, side // 4)))
    told = {"names": said or repr(dict(enumerate(names)))}
    return model(nodes, weights, value("images", (1, 3, side, side) if fixed else ("batch", 3, "height", "width")), outputs, told)


def yunet(side: int = 64) -> bytes:
    """Finds red cells of 8 pixels as faces; at the other strides it finds nothing."""
    nodes, weights, outputs = [], [], []
    for stride in (8, 16, 32):
        count = (side // stride) ** 2
        weights += [tensor(f"w{stride}", mean_of(stride, [2], 1 / 255 if stride == 8 else 0.0)), tensor(f"flat{stride}", np.array([1, count, 1]))]
        nodes += [conv(f"w{stride}", f"map{stride}", stride), *(node("Reshape", [f"map{stride}", f"flat{stride}"], f"{what}_{stride}") for what in ("cls", "obj"))]
        for what, size in (("bbox", 4), ("kps", 10)):
            weights.append(tensor(f"{what}{stride}", np.tile([0.5, 0.5, *[0.0] * (size - 2)], (1, count, 1)).astype(np.float32)))
            weights.append(tensor(f"zero{what}{stride}", np.zeros((1, 1, size), np.float32)))
            # depends on the picture, as OpenCV drops what does not
            nodes += [node("Mul", [f"cls_{stride}", f"zero{what}{stride}"], f"none{what}{stride}"),
                      node("Add", [f"none{what}{stride}", f"{what}{stride}"], f"{what}_{stride}")]
        outputs += [value(f"{what}_{stride}", (1, count, size)) for what, size in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))]
    return model(nodes, weights, value("images", (1, 3, side, side)), outputs)
