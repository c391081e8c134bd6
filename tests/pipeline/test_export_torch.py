"""`export --torch-export`: the network's own numbers in a program that any PyTorch reads, and nothing of this machine in it."""

from __future__ import annotations

import json
import zipfile
from typing import Any

import numpy as np
import pytest
import torch

from dermalyze.artifact.artifact import open_export
from dermalyze.errors import ModelError, UsageError
from dermalyze.models import program as module
from dermalyze.stages.export import export

HEADS = ({"kind": "linear"}, {"kind": "acrnn"})


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head["kind"])
def test_its_logits_are_the_graphs(new_world: Any, head: dict[str, Any]) -> None:
    world = new_world(model={"backbone": "tiny_cnn", "kwargs": {"channels": [8, 16, 16]}, "head": head})
    with pytest.raises(UsageError, match="dermalyze export"):
        export(world.run, world.spec, torch_export=True)
    export(world.run, world.spec)
    made = export(world.run, world.spec, torch_export=True)
    record = json.loads((world.run.program_dir / "program.json").read_text())
    artifact = open_export(world.run, world.spec.inference.recipe)
    assert record["artifact"]["artifact.json"] == artifact.sha256
    assert [one["name"] for one in record["inputs"]] == ["image"]
    assert record["outputs"][:2] == ["logits", "embedding"]
    assert record["sha256"] == made.as_dict()["sha256"]
    program = torch.export.load(str(world.run.program_dir / "model.pt2"))  # as whoever takes it would
    height, width = artifact.preprocessing["height"], artifact.preprocessing["width"]
    images = np.random.default_rng(3).integers(0, 256, (5, height, width, 3), dtype=np.uint8)
    logits = program.module()({"image": torch.from_numpy(images)})[0].detach().numpy()
    assert np.abs(logits - artifact.run(images)[0]).max() < 1e-4


def test_other_numbers_are_not_written(new_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world()
    export(world.run, world.spec)
    real = module.to_program

    def other(network: Any, *sizes: int) -> Any:
        with torch.no_grad():
            next(network.parameters()).add_(0.5)
        return real(network, *sizes)

    monkeypatch.setattr(module, "to_program", other)
    with pytest.raises(ModelError, match="numbers are not PyTorch's"):
        export(world.run, world.spec, torch_export=True)
    assert not world.run.program_dir.exists()


def test_not_both_at_once(new_world: Any) -> None:
    world = new_world()
    with pytest.raises(UsageError, match="export once with each"):
        export(world.run, world.spec, precision="int8", torch_export=True)


def test_no_path_of_this_machine_is_in_it(new_world: Any) -> None:
    world = new_world()
    export(world.run, world.spec)
    export(world.run, world.spec, torch_export=True)
    with zipfile.ZipFile(world.run.program_dir / "model.pt2") as archive:
        found = [
            name for name in archive.namelist() if b"site-packages" in archive.read(name) or b"/src/" in archive.read(name)
        ]
    assert not found, "stack traces of the tracing"
