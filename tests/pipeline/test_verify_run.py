"""Verification of a whole run: the artifact, and what it was made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dermalyze.serve.predictor.verify import verify


def failures(world: Any) -> list[str]:
    return [check.name for check in verify(world.run.root, threads=1).checks if check.passed is False]


def test_a_run_is_verified_with_its_manifest_split_and_weights(copy_of: Callable[[], Any]) -> None:
    world = copy_of()
    names = [check.name for check in verify(world.run.root, threads=1).checks]
    assert failures(world) == []
    assert {"reference answers", "manifest", "test_split.csv", "best.safetensors"} <= set(names)
    whole = {path: path.read_bytes() for path in (world.run.split_path("test"), world.run.best_weights_path)}
    for path, data in whole.items():
        path.write_bytes(data + b" ")
        assert failures(world) == [path.name]
        path.write_bytes(data)
    world.run.manifest_path.write_bytes(world.run.manifest_path.read_bytes() + b"x")
    assert failures(world) == ["run"]
