"""A network as it is deployed: pixels in, normalisation inside, one self-contained ONNX graph."""

# Shapes: B images, H height, W width, C classes, D width of the embedding, M encoded metadata, h x w map.

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dermalyze.artifact.artifact import MAX_GRAPH_BYTES
from dermalyze.errors import MissingExtraError, ModelError
from dermalyze.imaging.cases import statistics

OPSET = 18


class Deployed(nn.Module):
    """What goes into the graph: pixels as they are stored, to logits and embedding; normalisation is inside.

    Args:
        network: has `forward_with_embedding(images (B, 3, H, W)[, metadata (B, M)]) -> (logits (B, C), embedding (B, D))`; one
            that has `forward_with_cam` gives a class-activation map (B, C, h, w) as well.
        mean: of RGB in 0..1.
        std: of RGB in 0..1.
    """

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` gives."""
        return ["logits", "embedding", *(["cam"] if hasattr(self.network, "forward_with_cam") else [])]

    def forward(self, images: Tensor, metadata: Tensor | None = None) -> tuple[Tensor, ...]:
        """Images (B, H, W, 3) uint8 RGB, and metadata (B, M) where they are taken, to the `outputs`."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32) / 255
        normalised = (pixels - self.get_buffer("mean")) / self.get_buffer("std")
        name = "forward_with_cam" if "cam" in self.outputs else "forward_with_embedding"
        forward: Callable[..., tuple[Tensor, ...]] = getattr(self.network, name)
        return forward(normalised) if metadata is None else forward(normalised, metadata)


class DeployedPair(Deployed):
    """As `Deployed`, of a network of two pictures a case."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(network, mean, std)
        mean, std = statistics(mean, std)
        self.mean, self.std = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)

    def forward(  # type: ignore[override]
        self, images: Tensor, images2: Tensor, has_second: Tensor, metadata: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Both pictures (B, H, W, 3) uint8 RGB, whether there is a second (B,) bool, and metadata where they are taken."""
        known = has_second.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, images.shape[1], images.shape[2], 1)
        return super().forward(torch.cat([images, images2, known], dim=3), metadata)


def to_onnx(network: Deployed, height: int, width: int, metadata_width: int = 0) -> bytes:
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
    example, shapes = _example(network, height, width, metadata_width)
    level = logging.root.manager.disable
    try:
        logging.disable(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # the exporter warns of its own internals
            program = torch.onnx.export(
                network,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(shapes),
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
        cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"the network cannot be exported to ONNX: {cause[:300]}; choose another backbone or head") from error
    finally:
        logging.disable(level)
    _strip(model)
    return bytes(model.SerializeToString(deterministic=True))


def to_program(network: Deployed, height: int, width: int, metadata_width: int = 0) -> torch.export.ExportedProgram:
    """The network as a program of torch.export with a free batch size, for PyTorch's own ways of deploying.

    Raises:
        ModelError: an operation can't be traced.
    """
    example, shapes = _example(network, height, width, metadata_width)
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


def _example(network: Deployed, height: int, width: int, metadata_width: int) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Inputs to trace with, and which of their sizes are free."""
    example = [torch.zeros(2, height, width, 3, dtype=torch.uint8)]  # two: a batch of one would be taken for a constant
    batch = torch.export.Dim("batch")
    shapes: dict[str, Any] = {"images": {0: batch}}
    if isinstance(network, DeployedPair):
        example += [example[0].clone(), torch.ones(2, dtype=torch.bool)]
        shapes |= {"images2": {0: batch}, "has_second": {0: batch}}
    if metadata_width:
        example.append(torch.zeros(2, metadata_width))
        shapes["metadata"] = {0: batch}
    return tuple(example), shapes


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
