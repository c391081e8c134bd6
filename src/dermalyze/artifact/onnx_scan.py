"""A look into the bytes of an ONNX file before anything runs them: is it one, and does it stand alone?

onnxruntime resolves external data of a model given as bytes against the working folder, so a graph from elsewhere could
read files of this machine. A walk over the protobuf fields that can hold a tensor finds it without the onnx package.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from dermalyze.errors import ModelError

MAX_DEPTH = 64

# message -> {field number: message that the field holds}
_SCHEMA: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION, _MODEL_GRAPH = 13, 14, 7


class Malformed(Exception):
    """Bytes that are no protobuf message."""


def refuse_external_data(data: bytes, name: str) -> None:
    """Refuse bytes that are no ONNX model, or one that keeps tensors in other files.

    Args:
        data: a file's content.
        name: what to call it in messages.

    Raises:
        ModelError: as above.

    >>> refuse_external_data(b"PK not a graph", "model.onnx")
    Traceback (most recent call last):
    ...
    dermalyze.errors.ModelError: model.onnx: a zip archive, not an ONNX file; nothing in it was opened
    """
    if data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise ModelError(f"{name}: a pickle, not an ONNX file; nothing in it was opened")
    if data[:2] == b"PK":
        raise ModelError(f"{name}: a zip archive, not an ONNX file; nothing in it was opened")
    try:
        fields = _scan(memoryview(data), "Model", name, 0)
    except Malformed:
        raise ModelError(f"{name}: not an ONNX file, or a damaged one; export the model again") from None
    if _MODEL_GRAPH not in fields:
        raise ModelError(f"{name}: not an ONNX file (it holds no graph); export the model again")


def _scan(view: memoryview, message: str, name: str, depth: int) -> set[int]:
    """Walk one message; returns the numbers of its fields."""
    if depth > MAX_DEPTH:
        raise ModelError(f"{name}: sub-graphs nested deeper than {MAX_DEPTH}; not a file that export makes")
    seen: set[int] = set()
    position = 0
    while position < len(view):
        key, position = varint(view, position)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, position = varint(view, position)
        elif wire in (1, 5):
            value, position = 0, position + (8 if wire == 1 else 4)
        elif wire == 2:
            length, position = varint(view, position)
            value, end = 0, position + length
            if end > len(view):
                raise Malformed
            if field in _SCHEMA[message]:
                _scan(view[position:end], _SCHEMA[message][field], name, depth + 1)
            position = end
        else:
            raise Malformed
        if field == 0 or key >> 32 or position > len(view):  # C++ protobuf would drop a key's bits above 32
            raise Malformed
        external = field == _TENSOR_EXTERNAL_DATA or (field == _TENSOR_DATA_LOCATION and value != 0)
        if message == "Tensor" and external:
            raise ModelError(f"{name}: keeps tensors in other files (external data); only single-file graphs are opened")
        seen.add(field)
    return seen


def varint(view: memoryview, position: int) -> tuple[int, int]:
    """The number at a position, and where the next field begins."""
    value = shift = 0
    while True:
        if position >= len(view) or shift > 63:
            raise Malformed
        byte = view[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
