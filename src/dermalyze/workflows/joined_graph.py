"""Several exported networks as one ONNX graph that answers with the mean of their probabilities."""

# Shapes: B images, M members, C classes.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dermalyze.artifact.artifact import MAX_GRAPH_BYTES, Artifact
from dermalyze.artifact.graph import CAM, GRAPH_NAME, Graph
from dermalyze.artifact.onnx_prune import output_names
from dermalyze.calibration.recipes import apply_recipe
from dermalyze.errors import ModelError
from dermalyze.models.parity import PARITY_BATCHES, TOLERANCE, parity_images
from dermalyze.stages.export import reference_answers


def join_graphs(graphs: Sequence[bytes], *, cam: bool = False) -> bytes:
    """One graph with the members' input, whose logits are the log of their mean probability; the embedding is the first's.

        logits = log mean_m softmax(logits_m), by way of the largest, so that nothing underflows

    A recipe of several views may then be run on it as on any network: the mean over views and members is the same in either
    order.

    Args:
        graphs: exported networks of the same input and classes.
        cam: the members have class-activation maps of one size, and the mean of them is given.

    Raises:
        ModelError: they come of other versions of the exporter, or would be 2 GiB or more.
    """
    import onnx
    from onnx import compose, helper

    if sum(map(len, graphs)) > MAX_GRAPH_BYTES - 2**24:
        size = sum(map(len, graphs)) / 2**30
        raise ModelError(f"ensemble: the members' graphs have {size:.1f} GiB, one file holds under 2 GiB; take fewer members")
    models = [onnx.load_from_string(data) for data in graphs]
    versions = [(model.ir_version, sorted((one.domain, one.version) for one in model.opset_import)) for model in models]
    if any(version != versions[0] for version in versions):
        raise ModelError("ensemble: the members were exported by other versions; export them again: dermalyze export RUN")
    names = [output.name for output in models[0].graph.output if cam or output.name != CAM]
    shapes = {value.name: value for value in (*models[0].graph.input, *models[0].graph.output)}
    inside = [compose.add_prefix(model, f"m{m}_") for m, model in enumerate(models)]
    node = helper.make_node
    inputs = [value.name for value in models[0].graph.input]  # images, and metadata where they are taken
    nodes = [node("Identity", [name], [f"m{m}_{name}"]) for m in range(len(inside)) for name in inputs]
    nodes += [one for model in inside for one in model.graph.node]
    for m in range(len(inside)):
        nodes += [
            node("LogSoftmax", [f"m{m}_logits"], [f"m{m}_log_probs"], axis=1),
            node("Unsqueeze", [f"m{m}_log_probs", "members_axis"], [f"m{m}_stacked"]),
        ]
    nodes += [
        node("Concat", [f"m{m}_stacked" for m in range(len(inside))], ["log_probs"], axis=0),
        node("ReduceMax", ["log_probs", "members_axis"], ["largest"], keepdims=1),
        node("Sub", ["log_probs", "largest"], ["below"]),
        node("Exp", ["below"], ["parts"]),
        node("ReduceMean", ["parts", "members_axis"], ["mean"], keepdims=1),
        node("Log", ["mean"], ["log_mean"]),
        node("Add", ["log_mean", "largest"], ["kept"]),
        node("Squeeze", ["kept", "members_axis"], ["logits"]),
        node("Identity", ["m0_embedding"], ["embedding"]),
        *([node("Mean", [f"m{m}_cam" for m in range(len(inside))], [CAM])] if cam else []),
    ]
    axis = onnx.numpy_helper.from_array(np.array([0], np.int64), "members_axis")
    initializers = [one for model in inside for one in model.graph.initializer]
    graph = helper.make_graph(
        nodes, "ensemble", [shapes[name] for name in inputs], [shapes[name] for name in names], [*initializers, axis]
    )
    joined = helper.make_model(
        graph,
        opset_imports=list(models[0].opset_import),
        ir_version=models[0].ir_version,
        functions=[one for model in inside for one in model.functions],
    )
    return bytes(joined.SerializeToString(deterministic=True))


def cam_shape_of(artifacts: Sequence[Artifact]) -> tuple[int, int] | None:
    """(h, w) of the map that all members have; None where one has none or another size."""
    shapes = {one.graph.cam_shape for one in artifacts}
    return shapes.pop() if len(shapes) == 1 else None


def joined_cam(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """What the ensemble's record says of a class-activation map: the mean of the members' maps where each has one."""
    if (shape := cam_shape_of(artifacts)) is None:
        reason = "not every member has a class-activation map of the same size"
        return {"kind": "none", "reason": reason, "height": 0, "width": 0}
    return {"kind": "closed_form", "reason": "mean of the members' maps", "height": shape[0], "width": shape[1]}


def join_weights(paths: Sequence[Path]) -> bytes:
    """The members' weights in one safetensors file, as `member_0.NAME` and so on."""
    from safetensors.numpy import load, save

    tensors: dict[str, Any] = {}
    for m, path in enumerate(paths):
        tensors |= {f"member_{m}.{name}": value for name, value in load(path.read_bytes()).items()}
    return bytes(save(tensors))


def opened(graph: bytes, first: Artifact) -> Graph:
    """The joined graph, with the shapes of its first member."""
    blank = first.record.metadata.blank if first.record.metadata is not None else []
    height, width = first.preprocessing["height"], first.preprocessing["width"]
    shape = first.graph.cam_shape if CAM in output_names(graph, GRAPH_NAME) else None
    return Graph(
        graph, classes=len(first.classes), height=height, width=width, metadata_width=len(blank), cam=shape,
        second=first.record.second is not None,
    )  # fmt: skip


def joined_reference(graph: bytes, first: Artifact, record: dict[str, Any]) -> dict[str, Any]:
    """The joined graph's answers to the reference pictures."""
    blank = np.array(first.record.metadata.blank, np.float32) if first.record.metadata is not None else None
    return reference_answers(opened(graph, first), blank, record)


def joined_parity(graph: bytes, artifacts: Sequence[Artifact], recipe: str) -> dict[str, Any]:
    """Largest difference between the joined graph and the mean of its members, over noise and smooth pictures.

    Raises:
        ModelError: a probability differs by more than the export's tolerance.
    """
    blank = artifacts[0].record.metadata.blank if artifacts[0].record.metadata is not None else []
    height, width = artifacts[0].preprocessing["height"], artifacts[0].preprocessing["width"]
    joined = opened(graph, artifacts[0])
    noise = np.random.default_rng(1).standard_normal((max(PARITY_BATCHES), len(blank))).astype(np.float32)
    worst, task = 0.0, artifacts[0].answering.task
    for images in parity_images(max(PARITY_BATCHES), height, width, second=joined.second):
        for batch in PARITY_BATCHES:
            known = noise[:batch] if blank else None
            alone = [apply_recipe(recipe, one.knowing(known), images[:batch])[0] for one in artifacts]
            ours = apply_recipe(recipe, lambda views, known=known: joined.run(views, known), images[:batch])[0]  # type: ignore[misc]
            theirs = task.pool(np.stack(alone, axis=1))
            worst = max(worst, float(np.abs(task.probabilities(ours) - task.probabilities(theirs)).max()))
    if not worst <= TOLERANCE:
        raise ModelError(
            f"{GRAPH_NAME}: the joined graph differs from the mean of its members by {worst:.2g} (allowed {TOLERANCE:g})"
        )
    return {"max_probability_difference": worst, "tolerance": TOLERANCE, "batches": list(PARITY_BATCHES), "recipes": [recipe]}
