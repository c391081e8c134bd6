"""Behind `export --torch-export`: the network alone as a program of torch.export, for PyTorch's own ways of deploying.

It is written and never read here. It gives the logits of the artifact's graph, to the same tolerance; what makes an answer of
them (recipe, calibration, gate) is in the artifact, which its record names.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.record import RECORD_NAME
from dermalyze.core.atomic import json_bytes, publish, sha256_bytes
from dermalyze.core.progress import say
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run
from dermalyze.models.deployed import Deployed, to_program
from dermalyze.models.parity import TOLERANCE, measure_parity
from dermalyze.tasks.base import TASKS

PROGRAM_NAME = "model.pt2"


@dataclass(frozen=True)
class ProgramResult:
    """What was written.

    Attributes:
        folder: with the program and its record.
        sha256: of the program.
        program_bytes: its size.
        parity: largest differences from the artifact's graph; see `measure_parity`.
    """

    folder: Path
    sha256: str
    program_bytes: int
    parity: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**self.__dict__, "folder": str(self.folder)}

    def lines(self) -> list[str]:
        """Lines for a person."""
        difference = self.parity["max_probability_difference"]
        return [
            f"exported {PROGRAM_NAME} ({self.program_bytes / 2**20:.1f} MiB) to {self.folder}: logits, not calibrated",
            f"parity with the artifact: probabilities differ by at most {difference:.1e} (allowed {TOLERANCE:.0e})",
        ]


def write_program(run: Run, artifact: Artifact, network: Deployed) -> ProgramResult:
    """Write `RUN/export-torch`: `model.pt2` of the network that the artifact holds, and `program.json`.

    Args:
        run: locked.
        artifact: the run's export.
        network: of the same checkpoint, in evaluation mode.

    Raises:
        ModelError: the network can't be traced, or its numbers differ.
        ResourceError: the folder can't be written.
    """
    say("export: the network to torch.export, then its numbers against the artifact's")
    program = to_program(network)
    parity = measure_parity(program.module(), artifact.graph, TASKS[artifact.record.task])
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats that may change
        torch.export.save(program, buffer)
    data = buffer.getvalue()
    sha256 = sha256_bytes(data)
    written = {
        "program": PROGRAM_NAME,
        "sha256": sha256,
        "inputs": [{"name": one.name, "dtype": one.dtype, "shape": list(one.shape)} for one in network.inputs],
        "outputs": network.outputs,
        "classes": artifact.classes,
        "preprocessing": artifact.preprocessing,
        "artifact": {RECORD_NAME: artifact.sha256, "recipe": artifact.recipe},
        "parity": parity,
        "note": "Logits. Recipe, calibration and gate, without which they are no prediction, are in the artifact.",
        "disclaimer": DISCLAIMER,
    }
    files: dict[str, bytes | Path] = {PROGRAM_NAME: data, "program.json": json_bytes(written)}
    publish(files, run.program_dir, check=lambda folder: None)
    return ProgramResult(run.program_dir, sha256, len(data), parity)
