"""Several exported networks as one ONNX graph that answers with the mean of their probabilities."""

# Shapes: B images, M members, C classes.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dermalyze.artifact.artifact import MAX_GRAPH_BYTES, Artifact
from dermalyze.artifact.graph import CAM, GRAPH_NAME, Graph
from dermalyze.artifact.onnx_prune import output_names
from dermalyze.calibration.recipes import apply_recipe
from dermalyze.errors import ModelError
from dermalyze.imaging.samples import take
from dermalyze.models.parity import PARITY_BATCHES, TOLERANCE, parity_batches
from dermalyze.stages.export import reference_answers


def join_graphs(graphs: Sequence[bytes], *, activation: str = "softmax", cam: bool = False) -> bytes:
    """One graph with the members' input, whose logits are those of their mean probability; the embedding is the first's.

        classes: logits = log mean_m softmax(logits_m)
        labels: logits = log mean_m sigmoid(logits_m) - log mean_m sigmoid(-logits_m)

    Means are taken by way of the largest logarithm, so that nothing underflows.

    A recipe of several views may then be run on it as on any network: the mean over views and members is the same in either
    order.

    Args:
        graphs: exported networks of the same input and classes.
        activation: see `Task.activation`.
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
    inputs = [value.name for value in models[0].graph.input]
    nodes = [node("Identity", [name], [f"m{m}_{name}"]) for m in range(len(inside)) for name in inputs]
    nodes += [one for model in inside for one in model.graph.node]
    nodes += MEANS[activation](len(inside))
    nodes += [
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


def mean_of_classes(members: int) -> list[Any]:
    """Nodes from `m0_logits` and so on to `logits`: the log of the mean softmax."""
    from onnx import helper

    node = helper.make_node
    nodes = [node("LogSoftmax", [f"m{m}_logits"], [f"m{m}_log_probs"], axis=1) for m in range(members)]
    return [*nodes, *log_mean("log_probs", members, "logits")]


def mean_of_labels(members: int) -> list[Any]:
    """The same for labels: the logits of the mean sigmoid, from log p = -softplus(-z) and log(1 - p) = -softplus(z)."""
    from onnx import helper

    node, nodes = helper.make_node, []
    for m in range(members):
        nodes += [
            node("Neg", [f"m{m}_logits"], [f"m{m}_negated"]),
            node("Softplus", [f"m{m}_negated"], [f"m{m}_cost_present"]),
            node("Neg", [f"m{m}_cost_present"], [f"m{m}_log_present"]),
            node("Softplus", [f"m{m}_logits"], [f"m{m}_cost_absent"]),
            node("Neg", [f"m{m}_cost_absent"], [f"m{m}_log_absent"]),
        ]
    means = [*log_mean("log_present", members, "mean_present"), *log_mean("log_absent", members, "mean_absent")]
    return [*nodes, *means, node("Sub", ["mean_present", "mean_absent"], ["logits"])]


def log_mean(name: str, members: int, result: str) -> list[Any]:
    """Nodes from logarithms `m0_NAME` and so on to that of their mean."""
    from onnx import helper

    node = helper.make_node
    return [
        *(node("Unsqueeze", [f"m{m}_{name}", "members_axis"], [f"m{m}_{name}_stacked"]) for m in range(members)),
        node("Concat", [f"m{m}_{name}_stacked" for m in range(members)], [name], axis=0),
        node("ReduceMax", [name, "members_axis"], [f"{name}_largest"], keepdims=1),
        node("Sub", [name, f"{name}_largest"], [f"{name}_below"]),
        node("Exp", [f"{name}_below"], [f"{name}_parts"]),
        node("ReduceMean", [f"{name}_parts", "members_axis"], [f"{name}_mean"], keepdims=1),
        node("Log", [f"{name}_mean"], [f"{name}_log_mean"]),
        node("Add", [f"{name}_log_mean", f"{name}_largest"], [f"{name}_kept"]),
        node("Squeeze", [f"{name}_kept", "members_axis"], [result]),
    ]


MEANS: Mapping[str, Callable[[int], list[Any]]] = {"softmax": mean_of_classes, "sigmoid": mean_of_labels}
"""By `Task.activation`."""


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
    shape = first.graph.cam_shape if CAM in output_names(graph, GRAPH_NAME) else None
    return Graph(graph, first.inputs, classes=len(first.classes), cam=shape)


def joined_reference(graph: bytes, first: Artifact, record: dict[str, Any]) -> dict[str, Any]:
    """The joined graph's answers to the reference images."""
    return reference_answers(opened(graph, first), record)


def joined_parity(graph: bytes, artifacts: Sequence[Artifact], recipe: str) -> dict[str, Any]:
    """Largest difference between the joined graph and the mean of its members, over noise and smooth images.

    Raises:
        ModelError: a probability differs by more than the export's tolerance.
    """
    joined = opened(graph, artifacts[0])
    worst, task = 0.0, artifacts[0].answering.task
    for samples in parity_batches(joined.inputs, max(PARITY_BATCHES)):
        for count in PARITY_BATCHES:
            batch = take(samples, slice(count))
            alone = [apply_recipe(recipe, one.run, batch)[0] for one in artifacts]
            ours = apply_recipe(recipe, joined.run, batch)[0]
            theirs = task.pool(np.stack(alone, axis=1))
            worst = max(worst, float(np.abs(task.probabilities(ours) - task.probabilities(theirs)).max()))
    if not worst <= TOLERANCE:
        raise ModelError(
            f"{GRAPH_NAME}: the joined graph differs from the mean of its members by {worst:.2g} (allowed {TOLERANCE:g})"
        )
    return {"max_probability_difference": worst, "tolerance": TOLERANCE, "batches": list(PARITY_BATCHES), "recipes": [recipe]}
