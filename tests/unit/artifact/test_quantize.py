"""Eight bits of graphs that onnxruntime's tools stumble over."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from dermalyze.artifact.graph import Graph
from dermalyze.artifact.quantize import quantize
from dermalyze.imaging.samples import Input


def listed_weights(edge: int = 4, classes: int = 3, width: int = 8) -> bytes:
    """A graph without convolutions whose `value_info` lists its weights, as torch's exporter writes them."""
    rng, node, info = np.random.default_rng(0), helper.make_node, helper.make_tensor_value_info
    weights = {
        "hidden": rng.normal(size=(width, 3 * edge * edge)).astype(np.float32),
        "last": rng.normal(size=(classes, width)).astype(np.float32),
    }
    nodes = [
        node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        node("Flatten", ["pixels"], ["flat"], axis=1),
        node("Gemm", ["flat", "hidden"], ["embedding"], name="hidden_layer", transB=1, alpha=0.01),
        node("Gemm", ["embedding", "last"], ["logits"], name="last_layer", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [info("image", TensorProto.UINT8, ["batch", edge, edge, 3])],
        [info("logits", TensorProto.FLOAT, ["batch", classes]), info("embedding", TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
        value_info=[info(name, TensorProto.FLOAT, list(values.shape)) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()


def test_a_graph_that_lists_its_weights_is_quantized() -> None:
    data = listed_weights()
    images = np.random.default_rng(1).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)
    small, how = quantize(data, {"image": images})
    assert how.startswith("dynamic")
    inputs = [Input("image", "uint8", (4, 4, 3))]
    whole, eight = (Graph(one, inputs, classes=3).run({"image": images})[0] for one in (data, small))
    assert np.abs(whole - eight).max() < 0.1 * np.abs(whole).max()
    assert np.abs(whole - eight).max() > 0, "eight bits that change nothing are none"
