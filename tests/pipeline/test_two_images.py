"""Two images per sample, from a table to an answer; the class is readable from the second image alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CASES, CLASSES, WITHOUT, case_spec, read_table, write_cases, write_table
from training import another, balanced_accuracy, outcome, scored_runs, split_run
from typer.testing import CliRunner

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.graph import GRAPH_NAME
from dermalyze.artifact.record import sealed
from dermalyze.cli import app
from dermalyze.core.run import Run, read_json
from dermalyze.data.grouping import conflicts
from dermalyze.data.manifest import read_manifest
from dermalyze.data.splitting import read_part
from dermalyze.errors import ConfigError, DataError, InterruptedRunError, LeakError, ModelError, UsageError
from dermalyze.scoring.predictions import read_predictions
from dermalyze.serve.predictor.answers import predict
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.stages.audit import audit
from dermalyze.stages.evaluate import evaluate, evaluate_external
from dermalyze.stages.export import export
from dermalyze.stages.prepare import prepare
from dermalyze.stages.score import score
from dermalyze.stages.similar import similar
from dermalyze.stages.split import split
from dermalyze.stages.train import train
from dermalyze.training import loop
from dermalyze.training.setup import Training
from dermalyze.workflows.controls import controls
from dermalyze.workflows.joined_graph import join_graphs, joined_parity

KINDS = ("shared", "separate")
NO_IMAGE_2 = "no image_2: answered without it"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("cases"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMALYZE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def base(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return split_run(tmp_path_factory.mktemp("base") / "run", case_spec(table, None))


@pytest.fixture(scope="module")
def trained(base: Run, table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, Run]:
    """One finished run a kind, and one of first images alone."""
    return scored_runs(base, {kind: case_spec(table, kind) for kind in (None, *KINDS)}, tmp_path_factory)


def changed(table: Path, root: Path, change: Any) -> Path:
    """A copy of the set with another table; `change` gets its rows."""
    shutil.copytree(table, root)
    rows = read_table(root / "set.csv")
    change(rows)
    write_table(root / "set.csv", rows)
    return root


def begun(root: Path, table: Path, second: str | None = "shared", **changes: Any) -> Run:
    spec = case_spec(table, second, **changes)
    run = Run.create(root, spec)
    prepare(run, spec)
    return run


# -- data --------------------------------------------------------------------------------------------------------------


def test_the_manifest_knows_both_pictures(base: Run) -> None:
    frame, summary = read_manifest(base), read_json(base.summary_path)
    without = frame["image_2_path"].isna()
    assert int(without.sum()) == len(range(0, CASES, WITHOUT))
    assert summary["optional_images"] == {
        "image_2": {"samples": CASES - int(without.sum()), "missing": int(without.sum()), "same_as_first": 0}
    }
    assert frame.loc[~without, "image_2_sha256"].str.len().eq(64).all()
    assert "image_2_path" not in summary["user_columns"]
    assert "clinical" not in frame


def test_a_set_of_one_picture_has_no_further_columns(table: Path, tmp_path: Path) -> None:
    root = changed(table, tmp_path / "set", lambda rows: [row.update(clinical="") for row in rows])
    run = begun(tmp_path / "run", root, None)
    assert not [name for name in read_manifest(run).columns if name.startswith("image_2_")]
    assert read_json(run.summary_path)["optional_images"] == {}


def test_a_bad_second_picture_puts_the_case_aside(table: Path, tmp_path: Path) -> None:
    def spoil(rows: list[dict[str, str]]) -> None:
        rows[1]["clinical"] = "nowhere.png"

    root = changed(table, tmp_path / "set", spoil)
    (root / "3b.png").write_bytes((root / "3b.png").read_bytes()[:200])
    run = begun(tmp_path / "run", root, data={"max_bad_fraction": 0.1})
    reasons = read_manifest(run).set_index("image_id")["quarantine_reason"].dropna()
    assert set(reasons.index) == {"i001", "i003"}
    assert reasons["i001"] == "image_2: image file is missing"
    assert reasons["i003"].startswith("image_2: ")
    with pytest.raises(DataError, match=r"2 of 120 images are unusable .*image_2"):
        begun(tmp_path / "strict", root)


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "a\x01b.png"])
def test_paths_that_leave_the_folder_are_refused(path: str, table: Path, tmp_path: Path) -> None:
    root = changed(table, tmp_path / "set", lambda rows: rows[4].update(clinical=path))
    with pytest.raises(DataError, match=r"set\.csv line 6: image_2_path"):
        begun(tmp_path / "run", root)
    assert not (tmp_path / "run" / "manifest.parquet").exists()


def test_a_link_that_leaves_the_folder_is_refused(table: Path, tmp_path: Path) -> None:
    root = changed(table, tmp_path / "set", lambda rows: rows[4].update(clinical="link.png"))
    (root / "link.png").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="link"):
        begun(tmp_path / "run", root)


def test_a_column_that_the_table_has_not(table: Path, tmp_path: Path) -> None:
    spec = case_spec(table, "shared", data={"source": {"kind": "csv", "columns": {"image_2_path": "clinicl"}}})
    with pytest.raises(DataError, match="clinicl"):
        prepare(Run.create(tmp_path / "run", spec), spec)


def test_a_network_of_two_needs_second_pictures(table: Path, base: Run, tmp_path: Path) -> None:
    root = changed(table, tmp_path / "set", lambda rows: [row.update(clinical="") for row in rows])
    with pytest.raises(ConfigError, match=r"model\.image_2: the set has no second images; name them"):
        begun(tmp_path / "run", root)
    one = begun(tmp_path / "one", root, None)
    split(one, one.config())
    spec = case_spec(root, "shared")
    with pytest.raises(ConfigError, match=r"model\.image_2: the training split has no second images"):
        train(another(one, tmp_path / "other", spec), spec)


class TestLeaks:
    def same(self, rows: list[dict[str, str]]) -> None:
        """The second image of i001 is the first one of i003, of the same class."""
        rows[1]["clinical"] = "3.png"

    def test_a_second_picture_that_is_a_first_one_joins_the_cases(self, table: Path, tmp_path: Path) -> None:
        run = begun(tmp_path / "run", changed(table, tmp_path / "set", self.same))
        split(run, run.config())
        rows = [read_part(run, part) for part in ("train", "val", "cal", "test")]
        (holding,) = [part for part in rows if "i001" in set(part["image_id"])]
        assert "i003" in set(holding["image_id"])
        groups = holding.set_index("image_id")["group"]
        assert groups["i001"] == groups["i003"]

    def test_an_own_split_that_parts_them_is_refused(self, table: Path, tmp_path: Path) -> None:
        def parted(rows: list[dict[str, str]]) -> None:
            self.same(rows)
            for i, row in enumerate(rows):
                row["split"] = {0: "val", 1: "cal", 2: "test"}.get(i // 2 % 8, "train")
            rows[1]["split"], rows[3]["split"] = "train", "test"

        run = begun(tmp_path / "run", changed(table, tmp_path / "set", parted))
        result = split(run, run.config())
        assert not result.passed
        (leak,) = result.certificate["leaks"]
        assert leak["image_ids"] == ["i001", "i003"]
        assert leak["joined_by"] == ["sha256", "pixel_sha256"]
        with pytest.raises(LeakError, match="leaks"):
            train(run, run.config())

    def test_one_picture_under_two_labels_is_refused_where_one_is_a_first(self, table: Path, tmp_path: Path) -> None:
        run = begun(tmp_path / "run", changed(table, tmp_path / "set", lambda rows: rows[1].update(clinical="2.png")))
        assert conflicts(read_manifest(run)) == [["i001", "i002"]]
        with pytest.raises(DataError, match="have two labels; first: i001, i002"):
            split(run, run.config())

    def test_an_overview_of_two_lesions_is_shared_and_kept_together(self, table: Path, tmp_path: Path) -> None:
        run = begun(tmp_path / "run", changed(table, tmp_path / "set", lambda rows: rows[1].update(clinical="2b.png")))
        assert conflicts(read_manifest(run)) == []
        findings = {finding.kind: finding for finding in audit(run, run.config()).findings}
        assert findings["shared_optional"].severity == "warn"
        assert findings["shared_optional"].examples == ("i001, i002",)
        split(run, run.config())
        rows = [read_part(run, part) for part in ("train", "val", "cal", "test")]
        assert [set(part["image_id"]) >= {"i001", "i002"} for part in rows].count(True) == 1

    def test_near_duplicates_are_looked_for_among_both(self, tmp_path: Path) -> None:
        """A second image that is another case's first one, mirrored, is found by the audit."""
        from PIL import Image

        from dermalyze.data.synthetic.synth import synthesize

        synthesize(tmp_path / "photos", lesions=14, seed=3, size_px=(96, 96), balance="even", images_per_lesion=1.0)
        photos = sorted((tmp_path / "photos").rglob("*.jpg"))
        root = tmp_path / "set"
        root.mkdir()
        rows = []
        for i, photo in enumerate(photos[:12]):
            shutil.copy(photo, root / f"{i}.jpg")
            rows.append({"image_id": f"i{i:02}", "path": f"{i}.jpg", "label": CLASSES[i % 2], "clinical": ""})
        Image.open(root / "7.jpg").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "mirrored.png")
        rows[3]["clinical"] = "mirrored.png"
        write_table(root / "set.csv", rows)
        run = begun(tmp_path / "run", root)
        found = audit(run, run.config()).duplicates
        assert [(pair.first, pair.second) for pair in found.pairs] == [("i03", "i07")]
        assert read_manifest(run).set_index("image_id").loc[["i03", "i07"], "cluster_id"].tolist() == ["i03", "i03"]


# -- from training to an answer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_picture_tells_what_the_first_does_not(kind: str, trained: dict[str | None, Run]) -> None:
    assert balanced_accuracy(trained[None], "flips") < 0.8  # 18 cases at chance
    assert balanced_accuracy(trained[kind], "flips") > balanced_accuracy(trained[None], "flips") + 0.15


@pytest.mark.parametrize("kind", KINDS)
def test_the_artifact_says_what_it_takes(kind: str, trained: dict[str | None, Run]) -> None:
    record = json.loads((trained[kind].artifact_dir / "artifact.json").read_text())
    assert [one["name"] for one in record["inputs"]] == ["image", "image_2", "present"]
    assert [one["optional"] for one in record["inputs"]] == [False, True, False]
    assert record["model"]["image_2"]["kind"] == kind
    assert record["parity"]["max_probability_difference"] < 1e-4
    alone = json.loads((trained[None].artifact_dir / "artifact.json").read_text())
    assert [one["name"] for one in alone["inputs"]] == ["image"]
    assert alone["model"]["image_2"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_scored_is_what_is_answered(kind: str, trained: dict[str | None, Run], table: Path, tmp_path: Path) -> None:
    """The scores of the test split against answers made from a CSV, from Python and from the command line."""
    run = trained[kind]
    p, test = read_predictions(run.predictions_path("test", "flips")), read_part(run, "test").set_index("image_id")
    rows = read_table(table / "set.csv")
    for row in rows:
        row["image_2_path"] = row.pop("clinical")
    write_table(table / "asked.csv", rows)
    answers = {answer.image_id: answer for answer in predict(run.root, [table / "asked.csv"], threads=1, scores=True)}
    probs = p.probs()
    predictor = Predictor(run.root, threads=1)
    for row, image_id in enumerate(p.ids):
        np.testing.assert_allclose(list(answers[image_id].probabilities.values()), probs[row], atol=1e-4)
        missing = bool(test["image_2_path"].isna()[image_id])
        assert (NO_IMAGE_2 in answers[image_id].notes) == missing
        image_2 = None if missing else table / test.loc[image_id, "image_2_path"]
        answer = predictor.predict(table / test.loc[image_id, "path"], image_2=image_2, scores=True)
        np.testing.assert_allclose(list(answer.probabilities.values()), probs[row], atol=1e-4)
    said = CliRunner().invoke(
        app, ["predict", str(run.root), str(table / "1.png"), "--image-2", str(table / "1b.png"), "--json"]
    )
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["probabilities"] == dict(
        predictor.predict(table / "1.png", image_2=table / "1b.png", scores=True)["probabilities"]
    )


def test_a_missing_second_picture_is_said(trained: dict[str | None, Run], table: Path) -> None:
    answer = Predictor(trained["shared"].root, threads=1).predict(table / "1.png")
    assert answer.as_dict()["notes"] == [NO_IMAGE_2]
    said = CliRunner().invoke(app, ["predict", str(trained["shared"].root), str(table / "1.png"), str(table / "2.png")])
    assert "Answered without a second image: 2; give it with --image-2" in said.stdout
    alone = CliRunner().invoke(app, ["predict", str(trained[None].root), str(table / "1.png")])
    assert "second image" not in alone.stdout


def test_foreign_pictures_stand_in_both_places(trained: dict[str | None, Run]) -> None:
    """Else they would be told by the missing second image, and not by what they show."""
    p = read_predictions(trained["separate"].foreign_path("synthetic", "flips"))
    stand_in = Predictor(trained["separate"].root).artifact.run(np.zeros((1, 16, 16, 3), np.uint8))[1][0, 8:]
    assert p.embedding is not None
    assert not np.isclose(p.embedding[:, 8:], stand_in, atol=1e-6).all(axis=1).any()


def test_members_of_two_pictures_join(trained: dict[str | None, Run]) -> None:
    folders = [trained[kind].artifact_dir for kind in KINDS]
    artifacts = [Artifact.open(folder, threads=1) for folder in folders]
    graph = join_graphs([(folder / GRAPH_NAME).read_bytes() for folder in folders])
    assert joined_parity(graph, artifacts, "flips")["max_probability_difference"] < 1e-4


def test_mc_dropout_and_the_report(base: Run, table: Path, tmp_path: Path) -> None:
    """With metadata as well: calibrated, evaluated and written."""
    from dermalyze.stages.calibrate import calibrate

    model = {"head": {"kind": "simple", "dropout": 0.2, "hidden": [8, 8]}, "metadata": {"columns": ["age"]}}
    spec = case_spec(table, "shared", epochs=2, model=model)
    run = another(base, tmp_path / "run", spec)
    train(run, spec)
    export(run, spec)
    score(run, spec, recipes=["mc_dropout"], passes=2)
    calibrate(run, spec)
    evaluate(run, spec)
    assert (run.report_dir / "report.html").exists()
    stored = read_predictions(run.predictions_path("test", "mc_dropout"))
    assert stored.samples is not None
    assert stored.samples.shape[1] == 2


def test_streamed_cases_are_the_cached_ones(base: Run, table: Path, tmp_path: Path) -> None:
    runs = []
    for cache in ("memory_map", "stream"):
        spec = case_spec(table, "separate", epochs=2, cache=cache, num_workers=0)
        run = another(base, tmp_path / cache, spec)
        train(run, spec)
        runs.append(run.best_weights_path.read_bytes())
    assert runs[0] == runs[1]


@pytest.mark.parametrize("kind", KINDS)
def test_resume_equals_uninterrupted_bit_for_bit(
    kind: str, base: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = case_spec(
        table, kind, epochs=3, ema=0.9, augment={"policy": "standard", "mixup": 0.2},
        progressive=[{"epoch": 0, "scale": 0.5}, {"epoch": 1, "scale": 1}],
    )  # fmt: skip
    whole, run = another(base, tmp_path / "whole", spec), another(base, tmp_path / "stopped", spec)
    train(whole, spec)
    step = loop.step
    done = []

    def stopping(training: Training, *arguments: Any) -> None:
        done.append(1)
        step(training, *arguments)
        if len(done) == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "step", stopping)
    with pytest.raises(InterruptedRunError):
        train(run, spec)
    monkeypatch.setattr(loop, "step", step)
    train(run, spec)
    assert outcome(run) == outcome(whole)


# -- commands that once refused two images ----------------------------------------------------------------------------


def test_another_set_is_scored_with_both_images(trained: dict[str | None, Run], table: Path, tmp_path: Path) -> None:
    run, rows = trained["separate"], read_table(table / "set.csv")
    spec = run.config()
    swapped = [{**row, "clinical": rows[i ^ 1]["clinical"]} for i, row in enumerate(rows)]
    for name, chosen in (("right", rows), ("swapped", swapped)):
        root = Path(shutil.copytree(table, tmp_path / name))
        write_table(root / "set.csv", chosen)
    found = {
        name: evaluate_external(run, spec, tmp_path / name / "set.csv", accept_leak="the same images on purpose").metrics
        for name in ("right", "swapped")
    }
    right, wrong = (found[name]["metrics"]["balanced_accuracy"]["value"] for name in ("right", "swapped"))
    assert right > wrong + 0.4, "the second image tells the class, so that of another class misleads"


def test_similar_compares_both_images(trained: dict[str | None, Run], table: Path) -> None:
    run = trained["separate"]
    spec = run.config()
    shares = [similar(run, spec, table / "1.png", image_2=table / second, k=5).shares for second in ("1b.png", "2b.png")]
    assert shares[0] != shares[1]
    assert max(shares[0], key=lambda name: shares[0][name]) == "nv"
    assert max(shares[1], key=lambda name: shares[1][name]) == "mel"
    with pytest.raises(UsageError, match="--image-2: this model takes one image per sample"):
        similar(trained[None], trained[None].config(), table / "1.png", image_2=table / "1b.png")


def test_corruptions_and_controls(trained: dict[str | None, Run], base: Run, table: Path, tmp_path: Path) -> None:
    run = trained["shared"]
    spec = run.config()
    assert score(run, spec, corruptions=3).corrupted == 3
    stored = read_predictions(run.corrupted_path("flips"))
    assert np.isfinite(stored.logits).all()
    result = controls(run, spec, only=("shuffled", "shortcut"), epochs=1)
    assert {"shuffled", "shortcut"} <= set(result.as_dict()["controls"])


def test_eight_bits_of_two_images(trained: dict[str | None, Run]) -> None:
    from dermalyze.stages.calibrate import calibrate

    run = trained["separate"]
    spec = run.config()
    calibrate(run, spec)
    export(run, spec, precision="int8")
    artifact = Artifact.open(run.precision_dir("int8"), threads=1)
    assert [one.name for one in artifact.inputs] == ["image", "image_2", "present"]
    assert artifact.record.parity["agreement"] >= 0.99


# -- bad input ---------------------------------------------------------------------------------------------------------


class TestRefused:
    def test_a_second_picture_for_a_model_of_one(self, trained: dict[str | None, Run], table: Path) -> None:
        with pytest.raises(UsageError, match="takes one image per sample"):
            Predictor(trained[None].root, threads=1).predict(table / "1.png", image_2=table / "1b.png")
        said = CliRunner().invoke(app, ["predict", str(trained[None].root), str(table / "1.png"), "--image-2", "x.png"])
        assert said.exit_code == 2
        assert "takes one image per sample; leave it out" in said.stderr

    @pytest.mark.parametrize("images", [["1.png", "2.png"], ["."], ["set.csv"], ["-"]])
    def test_one_second_picture_for_several(self, images: list[str], trained: dict[str | None, Run], table: Path) -> None:
        named = [image if image == "-" else str(table / image) for image in images]
        said = CliRunner().invoke(app, ["predict", str(trained["shared"].root), *named, "--image-2", str(table / "1b.png")])
        assert said.exit_code == 2
        assert "--image-2 goes with one image file" in said.stderr

    @pytest.mark.parametrize(
        ("content", "reason"), [(None, "no such file"), (b"<html>", ""), (b"", ""), (b"\x89PNG\r\n\x1a\n12345678", "")]
    )
    def test_a_second_picture_that_is_none(
        self, content: bytes | None, reason: str, trained: dict[str | None, Run], table: Path, tmp_path: Path
    ) -> None:
        second = tmp_path / "second.png"
        if content is not None:
            second.write_bytes(content)
        with pytest.raises(DataError, match=f"image_2: {reason}"):
            Predictor(trained["shared"].root, threads=1).predict(table / "1.png", image_2=second)
        said = CliRunner().invoke(app, ["predict", str(trained["shared"].root), str(table / "1.png"), "--image-2", str(second)])
        assert said.exit_code == 3

    def test_rows_whose_second_picture_leaves_the_folder(self, trained: dict[str | None, Run], table: Path) -> None:
        rows = [{"path": "1.png", "image_2_path": path} for path in ("../x.png", "/etc/passwd", "nowhere.png", " ", "1b.png")]
        write_table(table / "odd.csv", rows)
        answers = list(predict(trained["shared"].root, [table / "odd.csv"], threads=1))
        assert [answer.error for answer in answers] == [
            "image_2: the row's path leaves the CSV's folder; paths are relative to it",
            "image_2: the row's path leaves the CSV's folder; paths are relative to it",
            "image_2: no such file",
            None,
            None,
        ]
        assert [NO_IMAGE_2 in answer.notes for answer in answers[3:]] == [True, False]
        of_one = list(predict(trained[None].root, [table / "odd.csv"], threads=1))
        assert all(answer.error is None for answer in of_one)  # a model of one image lets the column be

    def test_an_artifact_whose_record_does_not_fit_its_graph(self, trained: dict[str | None, Run], tmp_path: Path) -> None:
        folder = tmp_path / "export"
        shutil.copytree(trained["shared"].artifact_dir, folder)
        path = folder / "artifact.json"
        record = json.loads(path.read_text())
        renamed = [{**one, "name": "image_3" if one["name"] == "image_2" else one["name"]} for one in record["inputs"]]
        path.write_bytes(sealed({**record, "inputs": renamed}))
        with pytest.raises(ModelError, match="input image_2"):
            Predictor(folder, threads=1)
        path.write_bytes(sealed({**record, "inputs": record["inputs"][:1]}))
        with pytest.raises(ModelError, match="input image_2"):
            Predictor(folder, threads=1)

    @pytest.mark.parametrize(
        ("second", "message"),
        [
            ({"kind": "shred"}, "shared"),
            ({"kind": "shared", "hide": 1}, "less than 1"),
            ("shared", "image_2"),
            ({"hid": 0.1}, "kind"),
        ],
    )
    def test_settings(self, second: Any, message: str, table: Path) -> None:
        with pytest.raises(ConfigError, match=message):
            case_spec(table, None, model={"image_2": second})
