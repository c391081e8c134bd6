"""The calibrate stage: what it fits on, what it writes, what it refuses; what is measured is what is served."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from stored_run import store_predictions

from dermalyze.artifact.record import parse_record
from dermalyze.calibration.calibrators import Calibrator, fit
from dermalyze.calibration.conformal import one_each
from dermalyze.errors import ConfigError, DataError, ModelError, UsageError
from dermalyze.scoring.predictions import read_predictions, write_predictions
from dermalyze.serve.predictor.output import write
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.stages.calibrate import calibrate, prior_shift
from dermalyze.stages.evaluate import evaluate
from dermalyze.tasks.base import TASKS

COUNTS = {"mel": 60, "nv": 90, "vasc": 30}


@pytest.fixture
def exported(judged, make_artifact):
    """A run with an artifact whose scores the predictions are; too sure by a factor of `skill`."""

    def make(skill: float = 4.0, config: dict[str, Any] | None = None, counts: dict[str, int] = COUNTS):
        run, spec = judged(counts, config=config, skill=skill)
        folder = make_artifact("export", classes=tuple(sorted(counts)), recipe=spec.inference.recipe)
        folder.rename(run.artifact_dir)
        again(run, spec, skill=skill)
        return run, spec

    return make


def again(run, spec, **options):
    store_predictions(run, spec, scores_sha256=parse_record(run.artifact_record_path.read_bytes()).scores_sha256, **options)


def cold(run):
    """Scores of half the spread that their labels call for."""
    for path in list(run.predictions_dir.iterdir()):
        p = read_predictions(path)
        write_predictions(path, type(p)(p.ids, p.groups, p.labels, p.logits / 4, None, p.meta))


def test_fitted_on_the_calibration_part_and_nothing_else(exported):
    run, spec = exported()
    cold(run)
    result = calibrate(run, spec)
    p = read_predictions(run.predictions_path("cal", "plain"))
    assert (result.part, result.images, result.groups) == ("cal", len(p), len(set(p.groups)))
    assert result.kind == "temperature"
    expected = fit("temperature", p.logits.astype(float), p.labels, np.zeros(3)).parameters
    assert result.parameters == expected
    assert [trial.kind for trial in result.trials] == ["none", "temperature", "prior_temperature", "vector", "isotonic"]
    assert "  *" in "\n".join(result.lines())
    json.dumps(result.as_dict())


def test_the_report_measures_what_the_predictor_answers(exported):
    run, spec = exported()
    cold(run)
    calibrate(run, spec)
    metrics = evaluate(run, spec).metrics
    p = read_predictions(run.predictions_path("test", "plain"))
    served = Predictor(run.root, threads=1).answering.calibrator
    assert served.kind == metrics["calibration"]["calibrator"] == "temperature"
    own = served(p.logits.astype(float))[np.arange(len(p)), p.labels]
    assert metrics["metrics"]["log_loss"]["value"] == pytest.approx(-np.log(own).mean())
    assert metrics["metrics"]["log_loss"]["value"] < metrics["calibration"]["before"]["metrics"]["log_loss"]["value"]
    assert metrics["calibration"]["fitted"]["part"] == "cal"
    assert metrics["metrics"]["accuracy"]["value"] == metrics["calibration"]["before"]["metrics"]["accuracy"]["value"]


def test_answers_say_whether_they_are_calibrated(exported):
    run, spec = exported()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    assert Predictor(run.root, threads=1).predict(pixels, scores=True)["calibrated"] is False
    cold(run)
    calibrate(run, spec)
    predictor = Predictor(run.root, threads=1)
    answer = predictor.predict(pixels, scores=True)
    logits, _ = predictor.artifact.run(pixels[None])
    assert list(answer["probabilities"].values()) == pytest.approx(predictor.answering.calibrator(logits)[0].tolist())
    assert answer["calibrated"] is False, "fitted, but not tested yet"
    evaluate(run, spec)
    assert Predictor(run.root, threads=1).predict(pixels, scores=True)["calibrated"] is True


def test_the_same_again_writes_the_same_bytes(exported):
    run, spec = exported()
    calibrate(run, spec)
    before = run.calibration_path("plain").read_bytes(), run.artifact_record_path.read_bytes()
    calibrate(run, spec)
    assert before == (run.calibration_path("plain").read_bytes(), run.artifact_record_path.read_bytes())


@pytest.mark.parametrize("kind", ["none", "vector", "isotonic", "prior_temperature"])
def test_a_name_takes_that_one(exported, kind):
    run, spec = exported(config={"inference": {"calibration": kind}})
    assert calibrate(run, spec).kind == kind
    assert Predictor(run.root, threads=1).answering.calibrator.kind == kind
    assert evaluate(run, spec).metrics["calibration"]["calibrator"] == kind


def test_any_may_change_answers_and_auto_may_not(exported):
    run, spec = exported(config={"inference": {"calibration": "any"}}, counts={"mel": 150, "nv": 150, "vasc": 150})
    for part in ("train", "val", "cal", "test"):
        path = run.predictions_path(part, "plain")
        p = read_predictions(path)
        write_predictions(path, type(p)(p.ids, p.groups, p.labels, p.logits + np.array([5, 0, 0]), None, p.meta))
    assert calibrate(run, spec).kind == "vector"
    auto = spec.model_copy(update={"inference": spec.inference.model_copy(update={"calibration": "auto"})})
    assert calibrate(run, auto).kind in ("none", "temperature")


def test_without_a_calibration_part_validation_is_used_and_it_is_said(exported):
    run, spec = exported(config={"split": {"fractions": {"train": 0.7, "val": 0.15, "test": 0.15}}})
    cold(run)
    assert calibrate(run, spec).part == "val"
    assert "early stopping" in evaluate(run, spec).page.read_text()


def test_shift_of_the_shares_is_that_of_the_weights(exported):
    run, spec = exported(config={"train": {"imbalance": {"kind": "sampling"}}})
    shift = prior_shift(run, TASKS["multiclass"], spec.train, ["mel", "nv", "vasc"])
    labels = read_predictions(run.predictions_path("train", "plain")).labels
    np.testing.assert_allclose(np.exp(shift), np.bincount(labels) / len(labels) * 3)


def test_scores_of_another_model_are_refused(exported):
    run, spec = exported()
    store_predictions(run, spec, scores_sha256="0" * 64)
    before = run.artifact_record_path.read_bytes()
    with pytest.raises(ModelError, match="not of the exported model; run again: dermalyze score"):
        calibrate(run, spec)
    assert run.artifact_record_path.read_bytes() == before
    assert not run.calibration_path("plain").exists()


def test_a_calibration_of_another_model_is_not_measured(exported):
    run, spec = exported()
    calibrate(run, spec)
    store_predictions(run, spec, scores_sha256="0" * 64)
    with pytest.raises(ModelError, match="scores of another model; run again: dermalyze calibrate"):
        evaluate(run, spec)


def test_predictions_of_other_images_are_refused(exported):
    run, spec = exported()
    path = run.predictions_path("cal", "plain")
    p = read_predictions(run.predictions_path("val", "plain"))
    write_predictions(path, type(p)(p.ids, p.groups, p.labels, p.logits, None, {**p.meta, "set": "cal"}))
    with pytest.raises(DataError, match="other images than the part cal"):
        calibrate(run, spec)


def test_nothing_scored_or_exported(judged):
    run, spec = judged(COUNTS)
    with pytest.raises(UsageError, match="dermalyze export"):
        calibrate(run, spec)
    run.predictions_path("cal", "plain").unlink()
    with pytest.raises(UsageError, match="dermalyze score"):
        calibrate(run, spec)


def test_uncalibrated_is_said(exported, capsys):
    run, spec = exported()
    assert evaluate(run, spec).metrics["calibration"]["fitted"] is None
    assert "not calibrated" in capsys.readouterr().err


def test_a_damaged_calibration_in_an_artifact_is_refused(make_artifact):
    with pytest.raises(ModelError, match="calibration: kind 'magic'"):
        Predictor(make_artifact(calibration={"kind": "magic", "parameters": {}}))


SHARES = {"mel": 0.2, "nv": 0.7, "vasc": 0.1}


class TestPrevalence:
    def predictor(self, make_artifact, **options):
        calibration = {**Calibrator("none", {}).as_dict(), "shares": SHARES}
        return Predictor(make_artifact(calibration=calibration), threads=1, **options)

    def test_bayes(self, make_artifact):
        pixels = np.random.default_rng(0).integers(0, 256, (1, 12, 16, 3), dtype=np.uint8)
        wanted = {"mel": 0.02, "nv": 0.9, "vasc": 0.08}
        plain = self.predictor(make_artifact).probabilities(pixels)[0]
        moved = self.predictor(lambda **o: make_artifact("two", **o), prevalence=wanted).probabilities(pixels)[0]
        odds = plain * [wanted[name] / SHARES[name] for name in ("mel", "nv", "vasc")]
        np.testing.assert_allclose(moved, odds / odds.sum())

    @pytest.mark.parametrize(
        "shares",
        [
            {"mel": 1.0},
            {"mel": 0.5, "nv": 0.6, "vasc": 0.1},
            {"mel": -0.1, "nv": 1.0, "vasc": 0.1},
            {"mel": "x", "nv": 1, "vasc": 0},
        ],
        ids=["missing", "sum", "negative", "text"],
    )
    def test_refused(self, make_artifact, shares):
        with pytest.raises(UsageError, match="sum to 1"):
            self.predictor(make_artifact, prevalence=shares)

    def test_without_calibration(self, make_artifact):
        with pytest.raises(UsageError, match="not calibrated"):
            Predictor(make_artifact(), prevalence=SHARES)


class TestReferral:
    CONFIG = {"inference": {"coverage": 0.7}}  # noqa: RUF012 - never changed

    def test_threshold_comes_from_the_calibration_part_and_stands_in_the_artifact(self, exported):
        run, spec = exported(config=self.CONFIG, skill=1.0)
        result = calibrate(run, spec)
        p = read_predictions(run.predictions_path("cal", "plain"))
        predictor = Predictor(run.root, threads=1)
        confidence = predictor.answering.calibrator(p.logits.astype(float)).max(axis=1)
        assert result.referral == {
            "confidence": "max_probability",
            "coverage": 0.7,
            "threshold": predictor.rule.referral.threshold,
        }
        assert np.mean(confidence >= predictor.rule.referral.threshold) == pytest.approx(0.7, abs=1 / len(p))
        assert "refers what is less sure" in "\n".join(result.lines())

    def test_answers_below_it_abstain_with_the_reason(self, make_artifact):
        pictures = list(np.random.default_rng(0).integers(0, 256, (40, 12, 16, 3), dtype=np.uint8))
        sure = [answer.confidence for answer in Predictor(make_artifact(), threads=1).predict_batch(pictures, scores=True)]
        referral = {"confidence": "max_probability", "coverage": 0.5, "threshold": float(np.median(sure))}
        calibration = {**Calibrator("none", {}).as_dict(), "referral": referral}
        answers = list(Predictor(make_artifact("two", calibration=calibration), threads=1).predict_batch(pictures, scores=True))
        assert sum(answer.abstain for answer in answers) == 20
        for answer in answers:
            assert answer.abstain is (answer.confidence < referral["threshold"]) is answer["abstain"]
            assert ("reason" in answer) is answer.abstain
        assert "not confident enough: below the threshold that 50 %" in next(a.reason for a in answers if a.abstain)
        table, cells = io.StringIO(), io.StringIO()
        write(answers, table, classes=["mel", "nv", "vasc"])
        assert table.getvalue().count("  refer  ") == 20
        write(answers, cells, classes=["mel", "nv", "vasc"], format="csv")
        rows = list(csv.DictReader(io.StringIO(cells.getvalue())))
        assert [row["abstain"] == "true" for row in rows] == [answer.abstain for answer in answers]
        assert [bool(row["reason"]) for row in rows] == [answer.abstain for answer in answers]

    def test_by_default_everything_is_answered(self, exported):
        run, spec = exported(skill=1.0)
        assert calibrate(run, spec).referral is None
        pixels = np.zeros((12, 16, 3), np.uint8)
        answer = Predictor(run.root, threads=1).predict(pixels, scores=True)
        assert answer.reason is None
        assert answer.reasons == answer.gate.reasons, "what refers it is the image, not the model's rule"

    def test_a_damaged_one_is_refused(self, make_artifact):
        calibration = {
            **Calibrator("none", {}).as_dict(),
            "referral": {"confidence": "max_probability", "threshold": "x", "coverage": 1},
        }
        with pytest.raises(ModelError, match="referral is damaged"):
            Predictor(make_artifact(calibration=calibration))

    def test_figures_of_few_lesions_of_a_class_have_no_interval(self, exported):
        run, spec = exported(skill=1.0, counts={"mel": 12, "nv": 120, "vasc": 12})
        calibrate(run, spec)
        m = evaluate(run, spec).metrics
        p = read_predictions(run.predictions_path("test", "plain"))
        mel = [group for group, label in zip(p.groups, p.labels, strict=True) if label == p.classes.index("mel")]
        assert len(set(mel)) < 5
        for found in (m["selective"]["coverages"][0]["missed"], m["conformal"]["rules"]["lac marginal"]["by_class"]["mel"]):
            assert (found["n"], found["groups"]) == (len(mel), len(set(mel)))
            assert found["low"] is found["high"] is None
            assert "at least 5 needed" in found["note"]
        assert m["selective"]["coverages"][0]["accuracy"]["low"] is not None

    def test_the_report_says_what_the_thresholds_do_on_the_test_part(self, exported):
        run, spec = exported(skill=1.0)
        calibrate(run, spec)
        m = evaluate(run, spec).metrics
        served = Predictor(run.root, threads=1).answering.calibrator
        known = served(read_predictions(run.predictions_path("cal", "plain")).logits.astype(float)).max(axis=1)
        p = read_predictions(run.predictions_path("test", "plain"))
        probs = served(p.logits.astype(float))
        assert [row["asked"] for row in m["selective"]["coverages"]] == [0.95, 0.9, 0.8, 0.5]
        for row in m["selective"]["coverages"]:
            threshold = np.sort(known)[::-1][int(np.ceil(row["asked"] * len(known) - 1e-9)) - 1]
            given = probs.max(axis=1) >= threshold
            right, mel = probs.argmax(axis=1) == p.labels, p.labels == p.classes.index("mel")
            assert row["threshold"] == pytest.approx(threshold)
            assert row["coverage"]["value"] == pytest.approx(given.mean())
            assert row["accuracy"]["value"] == pytest.approx(right[given].mean())
            assert row["sensitivity"]["value"] == pytest.approx(right[given & mel].mean())
            assert row["missed"]["value"] == pytest.approx((given & mel & ~right).sum() / mel.sum())


class TestSets:
    CONFIG = {"inference": {"set_level": 0.8}}  # noqa: RUF012 - never changed

    def test_answers_carry_the_set_that_calibrate_made(self, exported):
        run, spec = exported(config=self.CONFIG, skill=1.0)
        calibrate(run, spec)
        predictor = Predictor(run.root, threads=1)
        assert (predictor.rule.sets.level, predictor.rule.sets.score) == (0.8, "lac")
        assert set(predictor.rule.sets.thresholds) == {"mel", "nv", "vasc"}
        pictures = np.random.default_rng(0).integers(0, 256, (30, 12, 16, 3), dtype=np.uint8)
        inside = predictor.rule.sets.of(predictor.probabilities(pictures), predictor.classes)
        for answer, row in zip(predictor.predict_batch(list(pictures)), inside, strict=True):
            assert set(answer["prediction_set"]) == {name for name, one in zip(predictor.classes, row, strict=True) if one}
            probabilities = [answer.probabilities[name] for name in answer.prediction_set]
            assert probabilities == sorted(probabilities, reverse=True)

    def test_an_empty_set_abstains(self, make_artifact):
        sets = {"score": "lac", "level": 0.9, "thresholds": {"marginal": -1.0}, "groups": {"marginal": 40}}
        calibration = {**Calibrator("none", {}).as_dict(), "sets": sets}
        answer = Predictor(make_artifact(calibration=calibration), threads=1).predict(
            np.zeros((12, 16, 3), np.uint8), scores=True
        )
        assert answer.prediction_set == ()
        assert answer.abstain
        assert "no class fits" in answer.reason

    def test_by_default_there_is_none(self, exported):
        run, spec = exported()
        calibrate(run, spec)
        assert "prediction_set" not in Predictor(run.root, threads=1).predict(np.zeros((12, 16, 3), np.uint8), scores=True)

    def test_other_shares_do_not_go_with_it(self, exported):
        run, spec = exported(config=self.CONFIG)
        calibrate(run, spec)
        with pytest.raises(UsageError, match="belong to its calibration split"):
            Predictor(run.root, prevalence=SHARES)

    def test_the_report_has_coverage_of_every_rule_on_the_test_part(self, exported):
        run, spec = exported(skill=1.0)
        calibrate(run, spec)
        c = evaluate(run, spec).metrics["conformal"]
        assert len(c["rules"]) == 8
        p, q = (read_predictions(run.predictions_path(part, "plain")) for part in ("test", "cal"))
        served = Predictor(run.root, threads=1).answering.calibrator
        known, probs = served(q.logits.astype(float)), served(p.logits.astype(float))
        one = one_each(q.groups)
        own = np.sort(1 - known[one, q.labels[one]])
        threshold = own[int(np.ceil((len(own) + 1) * 0.9 - 1e-9)) - 1]
        inside = 1 - probs <= threshold
        found = c["rules"]["lac marginal"]
        assert found["coverage"]["value"] == pytest.approx(inside[np.arange(len(p)), p.labels].mean())
        assert found["size"]["value"] == pytest.approx(inside.sum(axis=1).mean())
        mel = p.labels == p.classes.index("mel")
        assert found["by_class"]["mel"]["value"] == pytest.approx(inside[mel, p.classes.index("mel")].mean())


class TestOperatingPoints:
    COUNTS = {"akiec": 120, "mel": 150, "nv": 200}  # noqa: RUF012 - never changed

    def test_what_is_measured_is_what_stands_in_the_artifact(self, exported):
        run, spec = exported(counts=self.COUNTS, skill=1.5, config={"evaluate": {"sensitivity": 0.9, "miss_cost": 3}})
        calibrate(run, spec)
        kept = json.loads(run.calibration_path("plain").read_text())["calibration"]["operating_points"]
        assert parse_record(run.artifact_record_path.read_bytes()).calibration["operating_points"] == kept
        assert Predictor(run.root, threads=1).classes == ["akiec", "mel", "nv"]  # and the artifact still opens
        asked = evaluate(run, spec).metrics["operating"]
        assert asked["part"] == "cal"
        assert kept.keys() == asked["questions"].keys() == {"malignant", "mel"}
        for name, question in asked["questions"].items():
            assert question["classes"] == kept[name]["classes"]
            for criterion, point in kept[name]["points"].items():
                assert point["threshold"] is not None
                found = question["points"][criterion]
                assert {key: found[key] for key in point} == point
        cal = read_predictions(run.predictions_path("cal", "plain"))
        probs = Calibrator.from_dict(json.loads(run.calibration_path("plain").read_text())["calibration"], 3)(
            cal.logits.astype(float)
        )
        threshold = kept["malignant"]["points"]["sensitivity_90"]["threshold"]
        found = (probs[:, 0] + probs[:, 1] >= threshold)[cal.labels < 2].mean()
        assert 0.9 <= found < 0.9 + 2 / (cal.labels < 2).sum()

    def test_too_few_lesions_choose_no_threshold_and_it_is_said(self, exported):
        run, spec = exported()
        calibrate(run, spec)
        kept = json.loads(run.calibration_path("plain").read_text())["calibration"]["operating_points"]
        point = kept["malignant"]["points"]["sensitivity_95"]
        assert point["threshold"] is None
        assert "at least 20 needed" in point["note"]
        page = evaluate(run, spec).page.read_text()
        assert point["note"] in page
        assert "more likely than not" in page

    def test_names_that_are_no_class_are_refused_before_anything_is_written(self, exported):
        run, spec = exported(config={"evaluate": {"malignant": ["melanom"]}})
        with pytest.raises(ConfigError, match="'melanom' is no class"):
            calibrate(run, spec)
        assert not run.calibration_path("plain").exists()
