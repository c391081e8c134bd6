"""A small graph with a class-activation map, made without torch."""

from __future__ import annotations

import numpy as np

MAP = (3, 4)
"""(h, w) of the map of 12 x 16 pixels."""
CAM_RECORD = {"kind": "closed_form", "reason": "a stand-in", "height": MAP[0], "width": MAP[1]}


def mapped_graph(classes: int = 3, height: int = 12, width: int = 16) -> bytes:
    """Mean colours of cells of 4 x 4 pixels are the map, their mean is the embedding, a fixed linear layer the head."""
    from onnx import TensorProto, checker, helper, numpy_helper

    maps = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    node, info = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        node("Div", ["pixels", "full"], ["unit"]),
        node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        node("AveragePool", ["planes"], ["map"], kernel_shape=[4, 4], strides=[4, 4]),
        node("ReduceMean", ["map", "axes"], ["embedding"], keepdims=0),
        node("MatMul", ["embedding", "maps"], ["logits"]),
        node("Transpose", ["map"], ["places"], perm=[0, 2, 3, 1]),
        node("MatMul", ["places", "maps"], ["by_class"]),
        node("Transpose", ["by_class"], ["cam"], perm=[0, 3, 1, 2]),
    ]
    constants = {"full": np.float32(255), "axes": np.array([2, 3]), "maps": maps}
    graph = helper.make_graph(
        nodes,
        "mapped",
        [info("images", TensorProto.UINT8, ["batch", height, width, 3])],
        [
            info("logits", TensorProto.FLOAT, ["batch", classes]),
            info("embedding", TensorProto.FLOAT, ["batch", 3]),
            info("cam", TensorProto.FLOAT, ["batch", classes, height // 4, width // 4]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    checker.check_model(model)
    return bytes(model.SerializeToString())
