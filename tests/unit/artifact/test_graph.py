"""The class-activation map of a graph: computed only where it is asked for, and refused where the record is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from mapped import CAM_RECORD, MAP, mapped_graph

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.graph import Graph
from dermalyze.artifact.onnx_prune import output_names, prune
from dermalyze.errors import ModelError
from dermalyze.imaging.samples import Input

INPUT = Input("image", "uint8", (12, 16, 3))
IMAGES = np.random.default_rng(1).integers(0, 256, (5, 12, 16, 3), dtype=np.uint8)


def test_the_mean_of_the_map_is_the_logit(make_artifact: Any) -> None:
    artifact = Artifact.open(make_artifact(graph=mapped_graph(), cam=CAM_RECORD), threads=1)
    logits, embedding, cam = artifact.cam(IMAGES)
    assert cam.shape == (5, 3, *MAP)
    np.testing.assert_allclose(cam.mean(axis=(2, 3)), logits, atol=1e-6)
    plain = artifact.run(IMAGES)
    np.testing.assert_allclose(plain[0], logits, atol=1e-6)
    np.testing.assert_allclose(plain[1], embedding, atol=1e-6)
    assert artifact.cam(IMAGES[:0])[2].shape == (0, 3, *MAP)


def test_what_is_not_asked_for_is_not_in_the_session(make_artifact: Any) -> None:
    """onnxruntime computes every output of a session, whatever is fetched: so the map's are in a session of their own."""
    artifact = Artifact.open(make_artifact(graph=mapped_graph(), cam=CAM_RECORD), threads=1)
    artifact.run(IMAGES)
    graph = artifact.graph
    assert [output.name for output in graph._session.get_outputs()] == ["logits", "embedding"]
    assert graph._with_cam is None, "opened only when a map is asked for"
    artifact.cam(IMAGES)
    assert graph._with_cam is not None
    pruned = onnx.load_from_string(prune(mapped_graph(), ["cam"], "model.onnx"))
    onnx.checker.check_model(pruned)
    kinds = [node.op_type for node in pruned.graph.node]
    assert kinds == ["Cast", "Div", "Transpose", "AveragePool", "ReduceMean", "MatMul"]


def test_pruning_keeps_what_a_later_output_needs() -> None:
    whole = mapped_graph()
    assert output_names(whole, "g") == ["logits", "embedding", "cam"]
    assert prune(whole, ["no such output"], "g") == whole
    alone = onnx.load_from_string(prune(whole, ["logits", "embedding"], "g"))
    assert [output.name for output in alone.graph.output] == ["cam"]
    assert "ReduceMean" not in [node.op_type for node in alone.graph.node]
    with pytest.raises(ModelError, match="not an ONNX file"):
        prune(whole[:-3], ["cam"], "g")


def test_pruning_leaves_graphs_with_sub_graphs_whole() -> None:
    from onnx import TensorProto, helper

    model = onnx.load_from_string(mapped_graph())
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("one", "two")]
    branches = [helper.make_graph([helper.make_node("Identity", ["cam"], [v.name])], v.name, [], [v]) for v in values]
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    model.graph.node.append(helper.make_node("If", ["yes"], ["used"], then_branch=branches[0], else_branch=branches[1]))
    pruned = onnx.load_from_string(prune(model.SerializeToString(), ["cam"], "g"))
    assert len(pruned.graph.node) == len(model.graph.node)
    assert [output.name for output in pruned.graph.output] == ["logits", "embedding"]


@pytest.mark.parametrize(
    ("graph", "cam", "said"),
    [
        (None, CAM_RECORD, "no output cam"),
        ("mapped", None, "cam: Input should be"),
        ("mapped", {"kind": "none", "reason": "x", "height": 0, "width": 0}, "artifact.json asks for"),
        ("mapped", {"kind": "grad_cam", "reason": "x", "height": 0, "width": 0}, "cam.kind"),
        ("mapped", {"kind": "none", "reason": "x"}, "cam.height: Field required"),
        ("mapped", {**CAM_RECORD, "height": -1}, "cam.height"),
    ],
)
def test_record_and_graph_must_agree(make_artifact: Any, graph: str | None, cam: Any, said: str) -> None:
    folder = make_artifact(graph=mapped_graph() if graph else None, cam=cam)
    with pytest.raises(ModelError, match=said):
        Artifact.open(folder)


def test_a_map_of_another_size_is_refused(make_artifact: Any) -> None:
    with pytest.raises(ModelError, match="its outputs are not those of"):
        Artifact.open(make_artifact(graph=mapped_graph(), cam={**CAM_RECORD, "height": 4}), threads=1)


def test_artifacts_without_a_map_open_and_say_so(make_artifact: Any) -> None:
    cam = {"kind": "none", "reason": "the head takes the map", "height": 0, "width": 0}
    without = Artifact.open(make_artifact("without", cam=cam), threads=1)
    with pytest.raises(ModelError, match="the head takes the map"):
        without.cam(IMAGES)
    assert Artifact.open(make_artifact("other"), threads=1).record.scores_sha256 != without.record.scores_sha256
    with pytest.raises(ModelError, match="gives logits, embedding, not cam"):
        without.graph.fetch(("cam",), {"image": IMAGES})


def test_nothing_but_bytes_is_needed(make_artifact: Any) -> None:
    with pytest.raises(ModelError, match="no output cam"):
        Graph(mapped_graph()[:0] + prune(mapped_graph(), ["cam"], "g"), [INPUT], classes=3, cam=MAP)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({"image": IMAGES[:, :4]}, "image is uint8"),
        ({"image": IMAGES.astype(np.float32)}, "image is float32"),
        ({"images": IMAGES}, "the batch has images; the model takes image"),
        ({"image": IMAGES, "metadata": np.zeros((5, 2), np.float32)}, "the batch has image, metadata"),
        ({}, "the batch has nothing"),
    ],
)
def test_a_batch_of_other_inputs_is_refused(make_artifact: Any, batch: Any, said: str) -> None:
    graph = Artifact.open(make_artifact(), threads=1).graph
    with pytest.raises(ModelError, match=said):
        graph.run(batch)
