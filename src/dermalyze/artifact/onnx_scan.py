"""A look into the bytes of an ONNX file before anything runs them: is it one, does it stand alone, and what does it compute?

onnxruntime resolves external data of a model given as bytes against the working folder, so a graph from elsewhere could
read files of this machine. A walk over the protobuf fields that can hold a tensor finds it without the onnx package. A graph
may also run for ever (`Loop`), give another answer each time (`RandomUniformLike`) or call code of its own domain, so only
the operators that networks of images are made of are let through.

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
OPERATORS = frozenset((
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "Attention", "AveragePool",
    "BatchNormalization", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil",
    "Celu", "CenterCropPad", "Clip", "Compress", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvInteger",
    "ConvTranspose", "Cos", "Cosh", "CumSum", "DeformConv", "DepthToSpace", "DequantizeLinear", "Div", "Dropout",
    "DynamicQuantizeLinear", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "GRU",
    "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater",
    "GreaterOrEqual", "GridSample", "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity",
    "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LSTM", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual",
    "Log", "LogSoftmax", "LpNormalization", "LpPool", "MatMul", "MatMulInteger", "Max", "MaxPool", "Mean",
    "MeanVarianceNormalization", "Min", "Mish", "Mod", "Mul", "Neg", "NonZero", "Not", "OneHot", "Or", "PRelu", "Pad",
    "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "RMSNormalization", "RNN", "Range", "Reciprocal", "ReduceL1",
    "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence", "RotaryEmbedding", "Round", "ScatterElements",
    "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus",
    "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Tile",
    "TopK", "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where", "Xor",
))  # fmt: skip
"""Of the standard domain: what `export` writes, and what convolutional and transformer graphs of others need. No control flow,
no randomness, no sequences and no text."""
_NODE_INPUT, _NODE_OPERATOR, _NODE_DOMAIN, _MODEL_FUNCTION = 1, 4, 7, 25
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION, _MODEL_GRAPH = 13, 14, 7


class Malformed(Exception):
    """Bytes that are no protobuf message."""


def refuse_unsafe(data: bytes, name: str) -> None:
    """Refuse bytes that are no ONNX model, or one that keeps tensors in other files or computes by other operators.

    Args:
        data: a file's content.
        name: what to call it in messages.

    Raises:
        ModelError: as above.

    >>> refuse_unsafe(b"PK not a graph", "model.onnx")
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
    operator, domain, inputs = "", "", 0
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
            if message == "Node":
                inputs += field == _NODE_INPUT
                operator = _text(view[position:end]) if field == _NODE_OPERATOR else operator
                domain = _text(view[position:end]) if field == _NODE_DOMAIN else domain
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
        if message == "Model" and field == _MODEL_FUNCTION:
            raise ModelError(f"{name}: has functions of its own; inline them (onnx.inliner) and try again")
        seen.add(field)
    if message == "Node":
        _check_operator(operator, domain, inputs, name)
    return seen


def _check_operator(operator: str, domain: str, inputs: int, name: str) -> None:
    standard = domain in ("", "ai.onnx")
    if not standard or operator not in OPERATORS or (operator == "Dropout" and inputs > 2):  # the third switches it on
        what = operator if standard else f"{domain}::{operator}"
        raise ModelError(
            f"{name}: uses the operator {what[:80]!r}; only those of the standard domain without control flow, randomness, "
            "sequences and text are run; export the network for inference, with its loops unrolled"
        )


def _text(view: memoryview) -> str:
    return bytes(view[:200]).decode("utf-8", "replace")


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
