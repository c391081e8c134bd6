"""A network as it is deployed: pixels in, normalization inside, one self-contained ONNX graph."""

# Shapes: B samples, H height, W width, C classes, D width of the embedding, h x w map.

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dermalyze.artifact.artifact import MAX_GRAPH_BYTES
from dermalyze.errors import MissingExtraError, ModelError
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.imaging.samples import Input, with_images

OPSET = 18


class Deployed(nn.Module):
    """What goes into the graph: inputs as they are stored, to logits and embedding; normalization is inside.

    Args:
        network: has `forward_with_embedding(inputs) -> (logits (B, C), embedding (B, D))`; one that has `forward_with_cam`
            gives a class-activation map (B, C, h, w) as well.
        preprocessing: mean and std of each channel, and the type of the pixels.
        inputs: names, types and shapes of what it takes.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, inputs: Sequence[Input]) -> None:
        super().__init__()
        self.network, self.inputs = network, tuple(inputs)
        self.scale = float(np.iinfo(preprocessing.dtype).max)
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1))

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` gives."""
        return ["logits", "embedding", *(["cam"] if hasattr(self.network, "forward_with_cam") else [])]

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """A batch with every input, images (B, H, W, channels), to the `outputs`."""
        prepared = with_images(inputs, self._normalized)
        name = "forward_with_cam" if "cam" in self.outputs else "forward_with_embedding"
        outputs: tuple[Tensor, ...] = getattr(self.network, name)(prepared)
        return outputs

    def _normalized(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).to(torch.float32) / self.scale
        return (pixels - self.get_buffer("mean")) / self.get_buffer("std")


def to_onnx(network: Deployed) -> bytes:
    """The network as a self-contained ONNX graph with a free batch size; the same network gives the same bytes.

    Raises:
        ModelError: an operation has no ONNX form, or the graph would be 2 GiB or more.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > MAX_GRAPH_BYTES - 2**24:
        raise ModelError(
            f"the network has {size / 2**30:.1f} GiB of weights; one ONNX file holds under 2 GiB: use a smaller one"
        )
    example, shapes = _example(network)
    level = logging.root.manager.disable
    try:
        logging.disable(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # the exporter warns of its own internals
            program = torch.onnx.export(
                network,
                (*example, {}),  # a mapping that comes last would be taken for keyword arguments
                dynamo=True,
                opset_version=OPSET,
                input_names=[one.name for one in network.inputs],
                output_names=network.outputs,
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
            assert program is not None
            model = program.model_proto
    except ModuleNotFoundError as error:
        raise MissingExtraError("export", "train") from error
    except Exception as error:  # the exporter raises whatever its passes raise
        cause = next(iter(str(error.__cause__ or error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"the network cannot be exported to ONNX: {cause[:300]}; choose another backbone or head") from error
    finally:
        logging.disable(level)
    _strip(model)
    return bytes(model.SerializeToString(deterministic=True))


def to_program(network: Deployed) -> torch.export.ExportedProgram:
    """The network as a program of torch.export with a free batch size, for PyTorch's own ways of deploying.

    Raises:
        ModelError: an operation can't be traced.
    """
    example, shapes = _example(network)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own internals
            program = torch.export.export(network, example, dynamic_shapes=shapes)
    except Exception as error:  # whatever its passes raise
        cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"torch.export cannot trace the network: {cause[:300]}; use the ONNX export") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # with the paths of this machine
    return program


def _example(network: Deployed) -> tuple[tuple[dict[str, Tensor]], tuple[dict[str, Any]]]:
    """Inputs to trace with, and which of their sizes are free."""
    batch = torch.export.Dim("batch")
    empty = {one.name: torch.from_numpy(one.empty(2)) for one in network.inputs}  # one would be taken for a constant
    return (empty,), ({name: {0: batch} for name in empty},)


def _strip(message: Any) -> None:
    """Take out what the exporter notes about its own work: stack traces with the paths of this machine, and docs."""
    for field, value in list(message.ListFields()):
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None and field.message_type.name != "TensorProto":
            try:
                for child in value:
                    _strip(child)
            except TypeError:  # not repeated
                _strip(value)
