"""An ONNX graph without the outputs that are not asked for, and without the work that only these need.

onnxruntime computes every output of a graph, whichever are fetched (its run option `only_execute_path_to_fetches` acts in
training builds alone); so what is not to be computed is taken out before the graph is opened. Works on the protobuf fields
themselves, so that the onnx package is not needed to predict.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dermalyze.artifact.onnx_scan import Malformed, varint
from dermalyze.errors import ModelError

_GRAPH, _NODE, _OUTPUT = 7, 1, 12  # of the model; of the graph
_INPUTS, _OUTPUTS, _ATTRIBUTES, _NAME = 1, 2, 5, 1  # of a node; of a value
_SUBGRAPHS = {6, 11}  # of an attribute


def output_names(data: bytes, name: str) -> list[str]:
    """Names of a graph's outputs, in order.

    Raises:
        ModelError: damaged.
    """
    try:
        return [_text(body) for number, _, body in _fields(_graph(data)) if number == _OUTPUT]
    except (Malformed, StopIteration, UnicodeDecodeError):
        raise _damaged(name) from None


def prune(data: bytes, outputs: Sequence[str], name: str) -> bytes:
    """The graph without these outputs.

    Args:
        data: a self-contained ONNX file, already looked at (`refuse_unsafe`).
        outputs: names to take out.
        name: of the file, for messages.

    Returns:
        Another file's bytes; the same where nothing is to go. A graph with sub-graphs, whose nodes may use any value, keeps
        all its nodes.

    Raises:
        ModelError: damaged.
    """
    try:
        fields = list(_fields(_graph(data)))
        values = [(index, _text(body)) for index, (number, _, body) in enumerate(fields) if number == _OUTPUT]
        drop = [index for index, value in values if value in outputs]
        if not drop:
            return data
        nodes = [(index, *_ends(body)) for index, (number, _, body) in enumerate(fields) if number == _NODE]
        if not any(_has_subgraph(fields[index][2]) for index, _, _ in nodes):
            needed = {value for _, value in values if value not in outputs}
            for index, inputs, made in reversed(nodes):  # ONNX asks for topological order
                if needed.intersection(made):
                    needed.update(inputs)
                else:
                    drop.append(index)
        gone = set(drop)
        kept = b"".join(bytes(raw) for index, (_, raw, _) in enumerate(fields) if index not in gone)
        parts = [bytes(raw) if number != _GRAPH else _field(_GRAPH, kept) for number, raw, _ in _fields(memoryview(data))]
        return b"".join(parts)
    except (Malformed, StopIteration, UnicodeDecodeError):
        raise _damaged(name) from None


def _graph(data: bytes) -> memoryview:
    return next(body for number, _, body in _fields(memoryview(data)) if number == _GRAPH and body is not None)


def _damaged(name: str) -> ModelError:
    return ModelError(f"{name}: not an ONNX file, or a damaged one; export the model again")


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """(number, whole field, content where it has a length) of each field of a message."""
    position = 0
    while position < len(view):
        start = position
        key, position = varint(view, position)
        body: memoryview | None = None
        if key & 7 == 0:
            _, position = varint(view, position)
        elif key & 7 in (1, 5):
            position += 8 if key & 7 == 1 else 4
        elif key & 7 == 2:
            length, position = varint(view, position)
            body, position = view[position : position + length], position + length
        else:
            raise Malformed
        if position > len(view):
            raise Malformed
        yield key >> 3, view[start:position], body


def _text(value: memoryview | None) -> str:
    """The name of a value."""
    return next((_decode(body) for number, _, body in _fields(value or memoryview(b"")) if number == _NAME), "")


def _ends(node: memoryview | None) -> tuple[list[str], list[str]]:
    """Names of a node's inputs and outputs."""
    fields = [(number, body) for number, _, body in _fields(node or memoryview(b""))]
    inputs, outputs = ([_decode(body) for n, body in fields if n == number] for number in (_INPUTS, _OUTPUTS))
    return inputs, outputs


def _has_subgraph(node: memoryview | None) -> bool:
    attributes = [body for number, _, body in _fields(node or memoryview(b"")) if number == _ATTRIBUTES]
    return any(number in _SUBGRAPHS for body in attributes if body is not None for number, _, _ in _fields(body))


def _decode(body: memoryview | None) -> str:
    return bytes(body or b"").decode()


def _field(number: int, body: bytes) -> bytes:
    return _varint_bytes(number << 3 | 2) + _varint_bytes(len(body)) + body


def _varint_bytes(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])
