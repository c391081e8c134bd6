"""What a graph computes is looked at before anything runs it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dermalyze.artifact.onnx_scan import OPERATORS, refuse_unsafe
from dermalyze.artifact.onnx_session import open_session
from dermalyze.errors import ModelError, UsageError
from dermalyze.serve.predictor.packaged import FOLDER, told_apart

X, Y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in ("x", "y"))


def graph(*nodes: onnx.NodeProto, domain: str = "", functions: tuple[onnx.FunctionProto, ...] = ()) -> bytes:
    made = helper.make_graph(nodes, "g", [X], [Y], [helper.make_tensor("k", TensorProto.INT64, [], [2**62])])
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(made, opset_imports=opsets, functions=functions, ir_version=9).SerializeToString()


def loop() -> onnx.NodeProto:
    """An iteration count of 2 to the 62nd, with a body that hands its input on."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in ("a", "b")]
    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on")]
    step = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["a"], ["b"])]
    body = helper.make_graph(nodes, "body", [step, flags[0], value[0]], [flags[1], value[1]])
    return helper.make_node("Loop", ["k", "", "x"], ["y"], body=body)


def branch() -> onnx.NodeProto:
    same = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "same", [], [
        helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, 3])
    ])  # fmt: skip
    return helper.make_node("If", ["x"], ["y"], then_branch=same, else_branch=same)


BAD = {
    "Loop": graph(loop()),
    "If": graph(branch()),
    "RandomUniformLike": graph(helper.make_node("RandomUniformLike", ["x"], ["y"])),
    "Bernoulli": graph(helper.make_node("Bernoulli", ["x"], ["y"])),
    "Dropout": graph(helper.make_node("Dropout", ["x", "r", "on"], ["y"])),
    "SequenceEmpty": graph(helper.make_node("SequenceEmpty", [], ["s"]), helper.make_node("Identity", ["x"], ["y"])),
    "com.microsoft::FusedMatMul": graph(
        helper.make_node("FusedMatMul", ["x", "x"], ["y"], domain="com.microsoft"), domain="com.microsoft"
    ),
    "my.domain::Relu": graph(helper.make_node("Relu", ["x"], ["y"], domain="my.domain"), domain="my.domain"),
}


@pytest.mark.parametrize("operator", list(BAD))
def test_what_no_network_of_images_is_made_of_is_refused_before_it_runs(operator: str) -> None:
    with pytest.raises(ModelError, match="only those of the standard domain without control flow") as caught:
        open_session(BAD[operator], "model.onnx", threads=1, remedy="export again")
    assert f"uses the operator '{operator}'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_functions_of_the_graphs_own_are_refused() -> None:
    add, opset = helper.make_node("Add", ["a", "a"], ["b"]), helper.make_opsetid("", 18)
    function = helper.make_function("own", "Twice", ["a"], ["b"], [add], [opset])
    calling = graph(helper.make_node("Twice", ["x"], ["y"], domain="own"), domain="own", functions=(function,))
    with pytest.raises(ModelError, match=r"has functions of its own; inline them|uses the operator 'own::Twice'"):
        refuse_unsafe(calling, "m")


def test_what_networks_are_made_of_runs() -> None:
    session = open_session(graph(helper.make_node("Relu", ["x"], ["y"])), "m", threads=1, remedy="")
    assert session.run(None, {"x": np.array([[-1.0, 0.0, 2.0]], np.float32)})[0].tolist() == [[0.0, 0.0, 2.0]]
    refuse_unsafe(graph(helper.make_node("Dropout", ["x"], ["y"])), "m")  # without its switch it does nothing


def test_every_operator_is_one_of_onnx_and_none_can_branch_or_draw() -> None:
    known = {schema.name: schema for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert set(known) >= OPERATORS
    graphs = onnx.defs.OpSchema.AttrType.GRAPH
    for name in OPERATORS:
        assert all(attribute.type != graphs for attribute in known[name].attributes.values()), name
        assert "seed" not in known[name].attributes or name == "Dropout", name


@pytest.mark.parametrize("name", ["model.onnx", "best.safetensors", "artifact.zip", "deep.zip"])
def test_a_model_in_one_file_is_not_taken_for_an_image(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("artifact.json" if name == "artifact.zip" else "export/artifact.json", "{}")
    else:
        file.write_bytes(b"x")
    with pytest.raises(UsageError, match=f"{name}: is a model in one file; give the folder of an artifact or a run"):
        told_apart([str(file), "photo.jpg"])


def test_a_zip_of_images_is_still_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.jpg", "x")
    assert told_apart([str(tmp_path / "photos.zip"), "b.jpg"])[0] == FOLDER
