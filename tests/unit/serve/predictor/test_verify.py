"""Verification: what was published is found to be so, and each change is found to be one."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mapped import CAM_RECORD, mapped_graph

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.edit import earlier_evaluation, rewrite, with_evaluation
from dermalyze.artifact.record import sealed
from dermalyze.artifact.self_test import answers, difference, reference_images, with_probabilities
from dermalyze.errors import ModelError, UsageError
from dermalyze.imaging.samples import Input
from dermalyze.serve.predictor.verify import verify
from dermalyze.tasks.answering import Answering

CALIBRATION = {"kind": "temperature", "parameters": {"temperature": 0.5}, "images": 30}


def record_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "artifact.json").read_text()))


@pytest.fixture
def folder(make_artifact: Any) -> Path:
    """An artifact with everything in it."""
    made = Path(make_artifact(graph=mapped_graph(), cam=CAM_RECORD, recipe="flips", calibration=CALIBRATION))
    artifact = Artifact.open(made, threads=1)
    reference = answers(artifact.run, artifact.answering, IMAGE)
    files = {"model_card.md": b"# A card\n", "metrics.json": b'{"headline": []}\n'}
    values = with_evaluation({**record_of(made), "reference": reference}, files)
    rewrite(made, values, files)
    return made


def failures(folder: Path) -> list[str]:
    result = verify(folder, threads=1)
    assert result.passed == (not any(check.passed is False for check in result.checks))
    return [check.name for check in result.checks if check.passed is False]


def test_all_is_well(folder: Path) -> None:
    assert failures(folder) == []
    artifact = Artifact.open(folder, threads=1)
    assert artifact.card == "# A card\n"
    assert artifact.metrics == {"headline": []}
    lines = verify(folder, threads=1).lines()
    assert any("4 synthetic images" in line for line in lines)
    assert f"{folder.name}: consistent with itself, SHA-256 {artifact.sha256}; is it what was published?" in lines[-2]
    json.dumps(verify(folder, threads=1).as_dict())


def test_what_was_published_is_told_by_its_hash_alone(folder: Path) -> None:
    published = Artifact.open(folder, threads=1).sha256
    found = verify(folder, sha256=published.upper(), threads=1)
    assert found.passed
    assert found.lines()[-2] == f"{folder.name}: as published"
    forged = record_of(folder)
    forged["classes"] = forged["classes"][::-1]  # a melanoma is called a nevus, and all hashes fit
    files = {name: (folder / name).read_bytes() for name in ("model_card.md", "metrics.json")}
    rewrite(folder, with_evaluation(forged, files), files)
    assert verify(folder, threads=1).passed
    assert "consistent with itself" in verify(folder, threads=1).lines()[-2]
    found = verify(folder, sha256=published, threads=1)
    assert [check.name for check in found.checks if check.passed is False] == ["published"]
    assert found.lines()[-2] == f"{folder.name}: NOT as published"
    with pytest.raises(UsageError, match="must be the 64 hexadecimal digits"):
        verify(folder, sha256=published[:12])


def test_every_flipped_bit_of_the_record_is_found(folder: Path) -> None:
    path = folder / "artifact.json"
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    published = hashlib.sha256(whole).hexdigest()
    for _ in range(200):
        data = bytearray(whole)
        data[generator.integers(len(data))] ^= 1 << generator.integers(8)
        path.write_bytes(data)
        assert not verify(folder, sha256=published, threads=1).passed


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors", "model_card.md", "metrics.json"])
def test_a_changed_byte(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    assert failures(folder) == [name, "opens"]


def test_a_missing_and_a_strange_file(folder: Path) -> None:
    (folder / "model_card.md").unlink()
    assert failures(folder) == ["model_card.md", "opens"]
    (folder / "model_card.md").write_bytes(b"# A card\n")
    (folder / "more.txt").write_text("")
    assert failures(folder) == ["opens"]


def test_another_network_with_a_record_made_to_fit(folder: Path) -> None:
    """Hashes can be written again by whoever changes a file; the answers still tell."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string((folder / "model.onnx").read_bytes())
    for tensor in model.graph.initializer:
        if tensor.name == "maps":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), "maps"))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    values = record_of(folder)
    values["files"]["model.onnx"] = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "artifact.json").write_bytes(sealed(values))
    assert failures(folder) == ["opens"], "the evaluation is of other answers"
    values |= {"evaluated_answers_sha256": None, "evaluation_files": {}}
    for name in ("model_card.md", "metrics.json"):
        (folder / name).unlink()
    (folder / "artifact.json").write_bytes(sealed(values))
    assert failures(folder) == ["reference answers"]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["reference"].update(seed=21),
        lambda r: r["reference"]["probabilities"].pop(),
        lambda r: r["reference"]["probabilities"][0].reverse(),
        lambda r: r["reference"].update(sha256="0" * 64),
    ],
)
def test_an_edited_record(folder: Path, change: Any) -> None:
    values = record_of(folder)
    change(values)
    (folder / "artifact.json").write_bytes(sealed(values))
    assert failures(folder) == ["reference answers"]


def test_without_recorded_answers_there_is_nothing_to_compare(make_artifact: Any) -> None:
    result = verify(make_artifact(), threads=1)
    assert result.passed
    assert {check.name: check.passed for check in result.checks}["reference answers"] is None


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a run"):
        verify(tmp_path)


def test_the_command_ends_with_four(folder: Path) -> None:
    code = "import sys; from dermalyze.cli import main; main()"

    def run(*words: str) -> Any:
        return subprocess.run([sys.executable, "-c", code, "verify", str(folder), *words], capture_output=True, text=True)

    assert run().returncode == 0
    (folder / "metrics.json").write_bytes(b"{}")
    done = run("--json")
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["passed"] is False
    assert done.stderr == ""


# -- the reference itself ---------------------------------------------------------------------------------------


def test_images_are_the_same_everywhere_and_differ_among_themselves() -> None:
    pictures = reference_images(20, 4, IMAGE)
    assert hashlib.sha256(pictures.tobytes()).hexdigest()[:16] == IMAGES_SHA256
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert pictures[:3].astype(int).std(axis=(1, 2)).min() > 5
    steps = np.abs(np.diff(pictures[0].astype(int), axis=0)).max()
    assert steps < np.abs(np.diff(pictures[-1].astype(int), axis=0)).max(), "smooth, but for the last"
    assert (reference_images(21, 4, IMAGE) != pictures).any()


IMAGE = Input("image", "uint8", (12, 16, 3))
IMAGES_SHA256 = "11b2466f6ff9b7ac"


def test_another_calibration_gives_other_probabilities_of_the_same_logits(folder: Path) -> None:
    reference = record_of(folder)["reference"]
    answering = Artifact.open(folder, threads=1).answering
    other = with_probabilities(reference, answering.plain)
    assert other["logits"] == reference["logits"]
    assert other["probabilities"] != reference["probabilities"]
    assert np.allclose(np.sum(other["probabilities"], axis=1), 1, atol=1e-6)
    with pytest.raises(ModelError, match="no such"):
        Answering.read("multiclass", answering.classes, "flips", {"kind": "no such", "parameters": {}})


def test_difference_is_infinite_where_nothing_can_be_compared(folder: Path) -> None:
    artifact = Artifact.open(folder, threads=1)
    reference = record_of(folder)["reference"]
    assert difference(reference, artifact.run, artifact.answering, IMAGE) < 1e-6
    assert difference({**reference, "images": 3}, artifact.run, artifact.answering, IMAGE) == float("inf")


# -- the evaluation belongs to the answers ------------------------------------------------------------------------


def test_another_calibration_drops_the_evaluation(folder: Path) -> None:
    scores = Artifact.open(folder, threads=1).record.scores_sha256
    rewrite(folder, {**record_of(folder), "calibration": {**CALIBRATION, "parameters": {"temperature": 0.6}}})
    artifact = Artifact.open(folder, threads=1)
    assert (artifact.card, artifact.metrics, artifact.record.evaluation_files) == ("", None, {})
    assert sorted(path.name for path in folder.iterdir()) == ["artifact.json", "model.onnx", "model.safetensors"]
    assert artifact.record.scores_sha256 == scores


def test_a_new_export_of_the_same_answers_keeps_it(folder: Path) -> None:
    values = record_of(folder)
    fresh = {**values, "evaluated_answers_sha256": None, "evaluation_files": {}}
    assert earlier_evaluation(folder, fresh)[0] == values
    assert set(earlier_evaluation(folder, fresh)[1]) == {"model_card.md", "metrics.json"}
    other = {**fresh, "recipe": "plain"}
    assert earlier_evaluation(folder, other) == (other, {})
    (folder / "metrics.json").write_bytes(b"{}")
    assert earlier_evaluation(folder, fresh) == (fresh, {})
    (folder / "artifact.json").write_bytes(b"[]")
    assert earlier_evaluation(folder, fresh) == (fresh, {})
    assert earlier_evaluation(folder / "none", fresh) == (fresh, {})


def test_metrics_that_are_no_object_are_refused(folder: Path) -> None:
    files = {"model_card.md": b"# A card\n", "metrics.json": b"[1]"}
    with pytest.raises(ModelError, match="no object"):
        rewrite(folder, with_evaluation(record_of(folder), files), files)
    assert Artifact.open(folder, threads=1).metrics == {"headline": []}, "the old one stays"
