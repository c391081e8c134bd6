"""A small graph with a class-activation map, made without torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from dermalyze.artifact.cam_grade import EXAMPLE
from dermalyze.artifact.record import parse_record
from dermalyze.core.atomic import json_bytes

MAP = (3, 4)
"""(h, w) of the map of 12 x 16 pixels."""
CAM_RECORD = {"kind": "closed_form", "reason": "a stand-in", "height": MAP[0], "width": MAP[1]}

GRADES: dict[str, Any] = {
    "better": {
        "verdict": "better",
        "words": "better than a centered blob and a random map for this model",
        "faithfulness": {"value": 0.073, "low": 0.053, "high": 0.098},
        "over": {
            "centre": {"value": 0.018, "low": 0.003, "high": 0.034},
            "random": {"value": 0.076, "low": 0.046, "high": 0.113},
        },
        "groups": 40,
        "level": 0.95,
    },
    "no better": EXAMPLE.model_dump(),
    "not graded": {
        "verdict": "not graded",
        "words": "not graded: too few images",
        "faithfulness": {"value": 0.2, "low": None, "high": None},
        "over": {
            "centre": {"value": 0.1, "low": None, "high": None},
            "random": {"value": 0.1, "low": None, "high": None},
        },
        "groups": 5,
        "level": 0.95,
    },
}
"""What `explain` may find of a model's maps."""


def graded(record: dict[str, Any], verdict: str) -> dict[str, Any]:
    """The content of an `artifact.json` with a grade of its own maps."""
    scores_sha256 = parse_record(json_bytes(record)).scores_sha256
    return {**record, "cam_grade": GRADES[verdict], "graded_scores_sha256": scores_sha256}


def mapped_graph(classes: int = 3, height: int = 12, width: int = 16) -> bytes:
    """Mean colors of cells of 4 x 4 pixels are the map, their mean is the embedding, a fixed linear layer the head."""
    from onnx import TensorProto, checker, helper, numpy_helper

    maps = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    node, info = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
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
        [info("image", TensorProto.UINT8, ["batch", height, width, 3])],
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
