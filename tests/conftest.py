"""For all tests: torchvision importable, one torch thread, no network by accident; a small artifact to serve or to damage."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"

if importlib.util.find_spec("torch") is not None:
    import torch

    from dermalyze.models import torch_guard

    torch_guard.install()
    torch.set_num_threads(1)

sys.path.append(str(Path(__file__).parent / "support"))
from stored_run import judged  # noqa: F401 - a fixture

# The same examples every time; new ones with: make test-random
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository that holds real data and weights; a test skips where what it needs is missing."""
    return SHARED


@pytest.fixture
def make_artifact(tmp_path: Path) -> Callable[..., Path]:
    """Write a small artifact without torch: the embedding is the mean color, the logits a fixed linear map of it."""
    return lambda name="artifact", **changes: write_artifact(tmp_path / name, **changes)


@pytest.fixture(scope="session")
def artifact_writer() -> Callable[..., Path]:
    """`write_artifact(folder, **changes)`, for what is made once for many tests."""
    return write_artifact


def write_artifact(
    folder: Path,
    *,
    classes: tuple[str, ...] = ("mel", "nv", "vasc"),
    height: int = 12,
    width: int = 16,
    recipe: str = "plain",
    graph: bytes | None = None,
    weights: bytes | None = None,
    more_files: dict[str, bytes] | None = None,
    **record_changes: Any,
) -> Path:
    from dermalyze.artifact.record import NOTHING_YET, sealed

    folder.mkdir()
    files = {
        "model.onnx": graph if graph is not None else stand_in_graph(len(classes), height, width),
        "model.safetensors": weights if weights is not None else struct.pack("<Q", 2) + b"{}",
        **(more_files or {}),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    record = {
        "schema_version": 2,
        "name": "stand-in",
        "created_from": {"manifest_sha256": "0" * 64, "config_sha256": "0" * 64, "weights_sha256": "0" * 64, "seed": 1},
        "classes": [{"name": name, "description": name.upper()} for name in classes],
        "preprocessing": {
            "kind": "squash", "height": height, "width": width, "crop_ratio": 0.875, "mean": [0.5] * 3, "std": [0.5] * 3,
            "draft": False, "dtype": "uint8", "modality": "dermoscopy",
        },
        "model": {"backbone": "stand-in"},
        "recipe": recipe,
        "training": {},
        "accepted_leak": None,
        "disclaimer": "not a diagnosis",
        "licence_note": "",
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "parity": {},
        "task": "multiclass",
        "inputs": [{"name": "image", "dtype": "uint8", "shape": [height, width, 3], "optional": False}],
        "outputs": graph_outputs(files["model.onnx"], len(classes)),
        "metadata": None,
        "cam": {"kind": "none", "reason": "a stand-in", "height": 0, "width": 0},
        **NOTHING_YET,
        **record_changes,
    }  # fmt: skip
    (folder / "artifact.json").write_bytes(sealed(record))
    return folder


def graph_outputs(graph: bytes, classes: int) -> list[dict[str, Any]]:
    """What a record says of a graph's outputs; those of `stand_in_graph` where the bytes are no graph."""
    import onnx

    try:
        outputs = onnx.load_from_string(graph).graph.output
    except Exception:
        outputs = []
    shapes = {one.name: [axis.dim_value for axis in one.type.tensor_type.shape.dim][1:] for one in outputs}
    known = {name: shape for name, shape in shapes.items() if name in ("logits", "embedding", "cam") and all(shape)}
    return [{"name": name, "shape": shape} for name, shape in ({"logits": [classes], "embedding": [3]} | known).items()]


def stand_in_graph(
    classes: int, height: int, width: int, *, scale: float = 1.0, change: Callable[[Any], None] | None = None
) -> bytes:
    """Bytes of an ONNX graph: left half brighter than right raises the first class, so that mirroring matters."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    ramp = np.linspace(1, 0, width, dtype=np.float32)[None, None, :, None] * np.ones((1, height, 1, 1), np.float32)
    maps = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32) * np.float32(scale)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "full"], ["unit"]),
        helper.make_node("Mul", ["unit", "ramp"], ["weighted"]),
        helper.make_node("ReduceMean", ["weighted", "axes"], ["embedding"], keepdims=0),
        helper.make_node("MatMul", ["embedding", "maps"], ["logits"]),
    ]
    constants = {"full": np.float32(255), "ramp": ramp, "axes": np.array([1, 2]), "maps": maps}
    graph = helper.make_graph(
        nodes,
        "stand_in",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if change is None:
        onnx.checker.check_model(model)
    else:
        change(model)
    return bytes(model.SerializeToString())


@pytest.fixture
def graph_bytes() -> Callable[..., bytes]:
    """`stand_in_graph`, for tests that damage it."""
    return stand_in_graph
