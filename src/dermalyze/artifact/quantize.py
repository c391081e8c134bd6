"""An exported graph in less precise numbers: whole ones of eight bits, or floating-point ones of sixteen."""

# Shapes: N samples.

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dermalyze.artifact.artifact import MAX_GRAPH_BYTES
from dermalyze.artifact.onnx_session import brief
from dermalyze.errors import MissingExtraError, ModelError
from dermalyze.imaging.samples import Batch, size_of, take

Precision = Literal["int8", "fp16", "bf16"]
FEW_CONVOLUTIONS = 2  # a transformer's patches
BATCH = 8
QUANTIZED = ["Conv", "MatMul", "Gemm", "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool"]


def quantize(graph: bytes, batch: Batch, *, sparing: bool = False) -> tuple[bytes, str]:
    """The graph in eight bits, and how it was made.

    Convolutional networks get quantize-dequantize pairs with ranges measured on the images, weights by channel; the last layer
    stays as it is. Networks of hardly any convolution get their matrix products quantized as they run, which needs no ranges.

    Args:
        graph: a self-contained ONNX file with outputs logits and embedding.
        batch: N samples with every input.
        sparing: leave the first convolution and the depthwise ones as they are, which have few weights and wide ranges.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: onnxruntime's tools refuse the graph.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ModuleNotFoundError as error:
        raise MissingExtraError("export --int8", "train") from error
    model = onnx.load_from_string(graph)
    kinds = Counter(node.op_type for node in model.graph.node)
    spared = [node.name for node in model.graph.node if "logits" in node.output]
    static = kinds["Conv"] > FEW_CONVOLUTIONS
    if sparing:
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        spared += [node.name for k, node in enumerate(convolutions) if k == 0 or _groups(node) > 1]
    feeds = _feeds(batch)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(feeds, None)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        whole, small = Path(folder) / "whole.onnx", Path(folder) / "small.onnx"
        whole.write_bytes(graph)
        try:
            if static:
                quantization.quantize_static(
                    whole, small, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                    op_types_to_quantize=QUANTIZED, nodes_to_exclude=spared,
                )  # fmt: skip
            else:
                # onnxruntime transposes weights of Gemm; the old shape, where the graph lists it, would contradict the new one
                weights = {weight.name for weight in model.graph.initializer}
                shapes = [info for info in model.graph.value_info if info.name not in weights]
                del model.graph.value_info[:]
                model.graph.value_info.extend(shapes)
                whole.write_bytes(model.SerializeToString())
                quantization.quantize_dynamic(
                    whole, small, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"], nodes_to_exclude=spared
                )
            data = small.read_bytes()
        except Exception as error:  # onnxruntime's tools raise whatever their passes raise
            raise ModelError(f"int8: this graph cannot be quantized: {brief(error)}; serve the fp32 export") from error
    if len(data) > MAX_GRAPH_BYTES:
        raise ModelError("int8: the quantized graph would be 2 GiB or more; serve the fp32 export")
    if not static:
        return data, "dynamic, matrix products alone"
    return data, "static QDQ, ranges of the calibration split" + (", depthwise and first layers in fp32" if sparing else "")


def halve(graph: bytes, kind: Precision) -> tuple[bytes, str]:
    """The graph in numbers of sixteen bits, and how it was made; inputs and outputs keep their types.

    fp16 computes in half precision where the runtime can; most CPUs cannot, and convert back and forth. bf16 stores the
    weights in bfloat16, whose range is float32's, and computes in float32: ONNX Runtime has no bfloat16 arithmetic for CPUs.

    Args:
        graph: a self-contained ONNX file.
        kind: fp16 or bf16.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: onnxruntime's tools refuse the graph, or a weight is beyond the numbers of fp16.
    """
    try:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"export --{kind}", "train") from error
    model = onnx.load_from_string(graph)
    if kind == "fp16":
        with _quiet():
            try:
                converted = convert_float_to_float16(model, keep_io_types=True)
                return converted.SerializeToString(), "half precision, inputs and outputs in fp32"
            except Exception as error:  # onnxruntime's tools raise whatever their passes raise
                raise ModelError(f"fp16: this graph cannot be converted: {brief(error)}; serve the fp32 export") from error
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            values, name = onnx.numpy_helper.to_array(weight), weight.name
            stored = onnx.helper.make_tensor(f"{name}.bf16", onnx.TensorProto.BFLOAT16, values.shape, values.ravel())
            weight.CopyFrom(stored)
            casts.append(onnx.helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT, name=f"{name}.cast"))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString(), "weights in bf16, computed in fp32"


def _groups(node: Any) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)


def _feeds(batch: Batch) -> Any:
    for start in range(0, size_of(batch), BATCH):
        yield {name: np.ascontiguousarray(values) for name, values in take(batch, slice(start, start + BATCH)).items()}


@contextlib.contextmanager
def _quiet() -> Any:
    """Without the tools' own advice."""
    import onnxruntime

    level = logging.root.manager.disable
    try:
        logging.disable(logging.CRITICAL)
        onnxruntime.set_default_logger_severity(4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        onnxruntime.set_default_logger_severity(2)  # its own default, warnings
