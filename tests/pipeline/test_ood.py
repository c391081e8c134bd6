"""Foreign and corrupted images, from score to answers: what is measured is served; nothing foreign gets a bare class."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dermalyze.artifact.artifact import open_export
from dermalyze.artifact.record import sealed
from dermalyze.calibration.decision_rule import OUTCOMES
from dermalyze.calibration.ood import OOD_SCORES
from dermalyze.calibration.recipes import apply_recipe
from dermalyze.core.run import read_json
from dermalyze.data.splitting import read_part
from dermalyze.errors import DataError, ModelError, UsageError
from dermalyze.imaging.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from dermalyze.imaging.decode import Preprocessing, decode, to_size
from dermalyze.scoring.ood_images import EACH, SYNTHETIC
from dermalyze.scoring.ood_results import read_ood_results
from dermalyze.scoring.predictions import read_predictions, write_predictions
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.stages.calibrate import calibrate
from dermalyze.stages.evaluate import evaluate
from dermalyze.stages.export import export
from dermalyze.stages.score import score


@pytest.fixture(scope="module")
def world(new_world):
    """Scored with a foreign folder and corrupted copies, calibrated with every part of the rule."""
    made = new_world(
        inference={"ood": "relative_mahalanobis", "coverage": 0.8, "set_level": 0.6}, evaluate={"resamples": 100}, seed=3
    )
    export(made.run, made.spec)
    films = made.run.root.parent / "my films"
    films.mkdir()
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (50, 60), dtype=np.uint8)).save(films / f"{i}.png")
    scored = score(made.run, made.spec, ood=[films], corruptions=3)
    return SimpleNamespace(run=made.run, spec=made.spec, films=films, scored=scored, calibrated=calibrate(made.run, made.spec))


@pytest.fixture(scope="module")
def metrics(world):
    return evaluate(world.run, world.spec).metrics


def test_score_stores_every_set_once(world):
    assert world.scored.ood == {"synthetic": EACH * len(SYNTHETIC), "my_films": 3}
    assert world.scored.corrupted == 3
    path = world.run.foreign_path("synthetic", "plain")
    known = read_predictions(path)
    assert set(known.groups) == set(SYNTHETIC)
    before = {p: p.stat().st_mtime_ns for p in [path, world.run.corrupted_path("plain")]}
    again = score(world.run, world.spec, corruptions=3)
    assert again.ood == {"synthetic": len(known)}
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert "corrupted copies of 3 test images" in " ".join(again.lines())


def test_corrupted_scores_are_those_of_the_corrupted_pixels(world):
    known = read_predictions(world.run.corrupted_path("plain"))
    assert len(known) == 3 * len(CORRUPTIONS) * len(SEVERITIES)
    test = read_part(world.run, "test").set_index("image_id")
    artifact = open_export(world.run, "plain", threads=1)
    preprocessing = Preprocessing.from_dict(artifact.preprocessing)
    for row in (0, 17, len(known) - 1):
        name, kind, severity = known.ids[row].rsplit("/", 2)
        data = (Path(world.spec.data.path) / test.loc[name, "path"]).read_bytes()
        pixels = corrupt(to_size(decode(data).image, preprocessing), kind, int(severity), image_id=name, seed=3)
        logits, _ = apply_recipe("plain", artifact.run, pixels[None])
        np.testing.assert_allclose(known.logits[row], logits[0], atol=1e-4)
        assert known.classes[known.labels[row]] == test.loc[name, "label"]


def test_the_threshold_lets_its_share_of_the_calibration_part_pass(world):
    p = read_predictions(world.run.predictions_path("cal", "plain"))
    beyond = read_ood_results(world.run, p)
    assert (beyond.foreignness(p) <= beyond.rule.limit.threshold).mean() >= 0.95
    known = read_json(world.run.calibration_path("plain"))
    assert set(known["ood"]["scores"]) == set(OOD_SCORES)
    assert all(set(one["auroc"]) == set(SYNTHETIC) for one in known["ood"]["scores"].values())
    assert "relative mahalanobis above" in " ".join(world.calibrated.lines())


def test_what_the_report_measures_is_what_is_served(world, metrics):
    p = read_predictions(world.run.predictions_path("test", "plain"))
    beyond = read_ood_results(world.run, p)
    expected = beyond.foreignness(p)
    test, predictor = read_part(world.run, "test"), Predictor(world.run.root, threads=1)
    answers = list(predictor.predict_batch([Path(world.spec.data.path) / path for path in test["path"]], scores=True))
    np.testing.assert_allclose([a.ood_score for a in answers], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert all(a.ood_threshold == beyond.rule.limit.threshold for a in answers)
    shares = metrics["decision"]["shares"]
    for name in ("answer", "set", "refer"):
        assert np.mean([a.decision == name for a in answers]) == pytest.approx(shares[name]["value"])
    for answer in answers:
        assert answer.abstain == (answer.decision == "refer")
        assert (answer.reason is None) == (answer.decision == "answer")
        assert answer["decision"] == answer.decision
        json.dumps(answer.as_dict())
    assert sum(shares[name]["value"] for name in OUTCOMES) == pytest.approx(1)


def test_the_report_has_every_set_score_and_corruption(world, metrics):
    o = metrics["ood"]
    assert o["chosen"] == "relative_mahalanobis"
    assert o["pictures"] == {**dict.fromkeys(SYNTHETIC, EACH), "my_films": 3}
    assert set(o["scores"]) == set(OOD_SCORES)
    assert o["scores"]["knn"]["sets"]["my_films"]["auroc"]["low"] is None  # three images have no interval
    c = metrics["corruptions"]
    assert c["images"] == 3
    assert set(c["kinds"]) == set(CORRUPTIONS)
    known = read_predictions(world.run.corrupted_path("plain"))
    rows = [i for i, name in enumerate(known.ids) if "/blur/" in name]
    right = known.logits[rows].argmax(axis=1) == known.labels[rows]
    assert c["kinds"]["blur"]["mean"]["accuracy"]["value"] == pytest.approx(right.mean())
    everything = np.mean(known.logits.argmax(axis=1) == known.labels)
    assert c["mean"]["accuracy"]["value"] == pytest.approx(everything)
    page = world.run.report_page_path.read_text()
    assert all(words in page for words in ("my films", "relative Mahalanobis", "blur, mean of five"))


def test_export_keeps_the_arrays_and_calibrate_writes_the_same_again(world):
    folder = world.run.artifact_dir
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before["ood.bin"] == world.run.ood_path("plain", "relative_mahalanobis").read_bytes()
    export(world.run, world.spec)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    calibrate(world.run, world.spec)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_damaged_missing_or_unnamed_file_is_refused(world, tmp_path):
    good = tmp_path / "good"
    shutil.copytree(world.run.artifact_dir, good)
    data = bytearray((good / "ood.bin").read_bytes())
    data[7] ^= 1
    (good / "ood.bin").write_bytes(data)
    with pytest.raises(ModelError, match=r"ood\.bin"):
        Predictor(good)
    (good / "ood.bin").unlink()
    with pytest.raises(ModelError, match=r"ood\.bin"):
        Predictor(good)
    bare = tmp_path / "bare"
    shutil.copytree(world.run.artifact_dir, bare)
    record = json.loads((bare / "artifact.json").read_text())
    (bare / "artifact.json").write_bytes(sealed({**record, "calibration_files": {}}))
    with pytest.raises(ModelError, match="not named"):
        Predictor(bare)
    (bare / "ood.bin").unlink()
    with pytest.raises(ModelError, match="calibrate again"):
        Predictor(bare)


def test_arrays_of_another_calibration_are_refused_by_the_report(world, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(world.run.root, root)
    run = type(world.run)(root)
    path = run.ood_path("plain", "knn")
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(ModelError, match="not what"):
        evaluate(run, world.spec)


@pytest.mark.parametrize("kind", ["black", "white", "noise", "1x1", "10000x1", "text"])
def test_what_is_no_lesion_never_gets_a_bare_class(world, kind):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    pictures = {
        "black": Image.new("RGB", (80, 60)), "white": Image.new("RGB", (80, 60), "white"), "noise": Image.fromarray(noise),
        "1x1": Image.new("RGB", (1, 1), (200, 150, 130)), "10000x1": Image.new("RGB", (10_000, 1)),
        "text": Image.open(io.BytesIO(page())),
    }  # fmt: skip
    answer = next(Predictor(world.run.root, threads=1).predict_batch([pictures[kind]]))
    if kind in ("1x1", "10000x1"):
        assert "is not a photograph" in answer.error
        assert answer.predicted_class is None
    else:
        assert answer.error is None
        assert (answer.decision, answer.abstain) == ("refer", True)
        assert "unlike the training images" in answer.reason


def page():
    from PIL import ImageDraw

    image = Image.new("RGB", (80, 60), "white")
    for y in range(4, 56, 6):
        ImageDraw.Draw(image).text((3, y), "lorem ipsum dolor", "black")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_sets_need_names_of_their_own_and_a_picture(world, tmp_path):
    (tmp_path / "noise").mkdir()
    with pytest.raises(UsageError, match="a name of its own"):
        score(world.run, world.spec, ood=[tmp_path / "noise"])
    with pytest.raises(UsageError, match="a name of its own"):
        score(world.run, world.spec, ood=[world.films, world.films])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image that can be read"):
        score(world.run, world.spec, ood=[tmp_path / "empty"])
    assert not world.run.foreign_path("empty", "plain").exists()


def test_auto_takes_the_best_by_synthetic_pictures_and_no_test_image_has_a_say(world, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(world.run.root, root)
    run = type(world.run)(root)
    inference = world.spec.inference.model_copy(update={"ood": "auto"})
    spec = world.spec.model_copy(update={"inference": inference})
    first = calibrate(run, spec).ood
    scores = read_json(run.calibration_path("plain"))["ood"]["scores"]
    assert first["kind"] == max(scores, key=lambda kind: scores[kind]["mean_auroc"])
    path = run.predictions_path("test", "plain")
    p = read_predictions(path)
    write_predictions(path, type(p)(p.ids, p.groups, p.labels, p.logits[::-1], p.embedding[::-1] * 5, p.meta))
    assert calibrate(run, spec).ood == first
    run.foreign_path("synthetic", "plain").unlink()
    assert calibrate(run, spec).ood is None
    assert not (run.artifact_dir / "ood.bin").exists()
    assert Predictor(run.root, threads=1).detector is None
