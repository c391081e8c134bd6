"""The small model that comes with the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermalyze.artifact.artifact import Artifact
from dermalyze.errors import ModelError, UsageError
from dermalyze.serve.predictor.packaged import FOLDER, told_apart
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.predictor.verify import verify


def test_more_threads_than_cores_end():
    code = (
        "import sys; from dermalyze.serve.predictor.packaged import FOLDER\n"
        "from dermalyze.serve.predictor.predictor import Predictor\n"
        "import numpy as np; print(Predictor(FOLDER, threads=100_000).predict(np.zeros((40, 40, 3), np.uint8)).index)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=True).stdout == b"0\n"


def test_it_is_whole_small_and_says_what_it_is():
    artifact = Artifact.open(FOLDER)
    assert artifact.classes == ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    assert artifact.record.model["pretrained"] is False, "from random weights"
    assert artifact.record.model["weights"] is None
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8 * 10**6
    assert "CC BY-NC" in artifact.record.licence_note
    assert "not a diagnosis" in artifact.record.disclaimer
    assert "HAM10000" in artifact.card
    assert artifact.record.accepted_leak is None
    assert artifact.record.calibration is not None


def test_it_still_gives_its_answers():
    assert [check.name for check in verify(FOLDER).checks if check.passed is False] == []


def test_it_answers_refers_and_explains():
    noise = Predictor(FOLDER).predict(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8), scores=True)
    assert noise.verdict == "refer"
    explained = Predictor(FOLDER).predict(np.full((96, 128, 3), 180, np.uint8), explain=True, scores=True)
    assert explained.cam is not None
    assert sum(explained.probabilities.values()) == pytest.approx(1)


def test_the_command_line_needs_no_model(tmp_path):
    Image.fromarray(np.full((96, 128, 3), (200, 150, 130), np.uint8)).save(tmp_path / "a.png")
    program = "from dermalyze.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "predict", str(tmp_path / "a.png"), "--format", "jsonl", "--scores"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(json.loads(done.stdout)["probabilities"]) == {"akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"}
    assert "small model of the package" in done.stderr


def test_what_is_the_model_and_what_are_images(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    (tmp_path / "photos").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").touch()
    photo, photos, run = (str(tmp_path / name) for name in ("photo.jpg", "photos", "run"))
    assert told_apart([photo, photo]) == (FOLDER, [photo, photo])
    assert told_apart([photos]) == (FOLDER, [photos])
    assert told_apart(["-"]) == (FOLDER, ["-"])
    assert told_apart([run, photo]) == (Path(run), [photo])
    assert told_apart([run]) == (Path(run), [])
    with pytest.raises((UsageError, ModelError), match="neither a run"):  # a mistyped run is not taken for an image
        Predictor(told_apart([str(tmp_path / "rum"), photo])[0])
