"""The choice of what computes a network: pinned, measured, and refused where the numbers differ."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mapped import CAM_RECORD, mapped_graph

from dermalyze.artifact.artifact import Artifact
from dermalyze.errors import MissingExtraError, ModelError, UsageError
from dermalyze.serve.predictor import provider as module
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.predictor.provider import choose_provider

IMAGES = np.random.default_rng(1).integers(0, 256, (3, 12, 16, 3), dtype=np.uint8)
OPENVINO = importlib.util.find_spec("openvino") is not None


@pytest.fixture
def folder(make_artifact: Any) -> Path:
    return Path(make_artifact(graph=mapped_graph(), cam=CAM_RECORD))


def pretended(shift: float = 0.0, seconds: float = 0.0) -> Any:
    """Another library that computes the stand-in's numbers, off by a little on the first class, slow or not."""
    import time

    def opened(data: bytes, threads: int | None) -> Any:
        from dermalyze.artifact.onnx_session import open_session

        session = open_session(data, "model.onnx", threads=1, remedy="")

        def answer(names: tuple[str, ...], inputs: dict[str, Any]) -> list[Any]:
            time.sleep(seconds)
            found = session.run(list(names), inputs)
            off = {"logits": np.float32(shift) * (np.arange(3) == 0)}
            return [value + off.get(name, np.float32(0)) for name, value in zip(names, found, strict=True)]

        return answer

    return opened


@pytest.mark.skipif(not OPENVINO, reason="openvino is not installed")
def test_openvino_gives_the_same_answers_and_tells_nobody(folder: Path) -> None:
    plain, other = Predictor(folder, threads=1), Predictor(folder, threads=1, provider="openvino")
    assert (plain.provider, other.provider) == ("onnxruntime", "openvino")
    assert other.artifact.graph.provider == "openvino"
    for image in IMAGES:
        ours, theirs = (one.predict(image, explain=True) for one in (plain, other))
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-5)
    assert other.artifact.run(IMAGES[:0])[0].shape == (0, 3)
    assert sys.modules.get("openvino_telemetry") is None
    assert Predictor(folder, threads=1, provider="auto").provider in ("onnxruntime", "openvino")


def test_the_faster_is_taken_and_it_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(module, "open_openvino", pretended(seconds=0.05))
    artifact = Artifact.open(folder, threads=1)
    assert choose_provider(artifact, folder, "auto", 1) == "onnxruntime"
    assert artifact.graph.answer is None
    real = Artifact.run

    def slow(self: Artifact, *given: Any) -> Any:
        import time

        time.sleep(0.05)
        return real(self, *given)

    monkeypatch.setattr(Artifact, "run", slow)
    monkeypatch.setattr(module, "open_openvino", pretended())
    assert choose_provider(artifact, folder, "auto", 1) == "openvino"
    assert artifact.graph.answer is not None
    assert [line.partition(" (")[0] for line in capsys.readouterr().err.splitlines()] == [
        "provider: onnxruntime",
        "provider: openvino",
    ]


def test_other_numbers_are_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(module, "open_openvino", pretended(shift=0.01))
    artifact = Artifact.open(folder, threads=1)
    assert choose_provider(artifact, folder, "auto", 1) == "onnxruntime"
    assert artifact.graph.answer is None
    said = capsys.readouterr().err
    assert "probabilities differ by" in said
    assert len(said.splitlines()) == 1
    with pytest.raises(ModelError, match=r"differ by .*use onnxruntime"):
        choose_provider(artifact, folder, "openvino", 1)


def test_not_a_number_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "open_openvino", pretended(shift=float("nan")))
    with pytest.raises(ModelError, match="differ by"):
        choose_provider(Artifact.open(folder, threads=1), folder, "openvino", 1)


def test_without_openvino(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    artifact = Artifact.open(folder, threads=1)
    assert choose_provider(artifact, folder, "auto", 1) == "onnxruntime"
    assert capsys.readouterr().err == "", "what nobody asked for by name needs no word"
    with pytest.raises(MissingExtraError, match=r"dermalyze\[openvino\]"):
        choose_provider(artifact, folder, "openvino", 1)


def test_a_graph_that_changed_meanwhile_and_a_wrong_name(folder: Path) -> None:
    artifact = Artifact.open(folder, threads=1)
    with pytest.raises(UsageError, match="not one of auto"):
        choose_provider(artifact, folder, "tensorrt")
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match="changed while"):
        choose_provider(artifact, folder, "openvino", 1)
