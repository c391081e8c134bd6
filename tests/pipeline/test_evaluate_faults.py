"""Evaluation: what must be refused is refused with its exit code and leaves no report; FAULTS 34 to 37."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dermalyze.errors import ConfigError, DataError, LeakError, ModelError, UsageError
from dermalyze.scoring.predictions import Predictions, read_predictions, write_predictions

COUNTS = {"bkl": 24, "mel": 30, "nv": 80}


def evaluate(*args, **kwargs):
    """The function of the stage that these options belong to, imported when it is first needed."""
    from dermalyze.stages.evaluate import evaluate as stage
    from dermalyze.stages.evaluate import evaluate_external, recalibrate

    return (recalibrate if "share" in kwargs else evaluate_external if "on" in kwargs else stage)(*args, **kwargs)


def change(run, spec, make, part="test"):
    path = run.predictions_path(part, spec.inference.recipe)
    write_predictions(path, make(read_predictions(path)))


def take(p: Predictions, rows) -> Predictions:
    return replace(
        p, ids=[p.ids[k] for k in rows], groups=[p.groups[k] for k in rows], labels=p.labels[rows], logits=p.logits[rows]
    )


def refused(run, spec, kind, words, code, **options):
    with pytest.raises(kind, match=words) as error:
        evaluate(run, spec, **options)
    assert error.value.exit_code == code
    assert "\n" not in str(error.value)
    assert not list(run.root.glob("report/**/*")), "a refused evaluation left files"


def test_predictions_of_the_training_part_are_not_test_results(judged):
    """FAULTS 37: the train file under the test file's name."""
    run, spec = judged(COUNTS)
    train = read_predictions(run.predictions_path("train", "plain"))
    write_predictions(run.predictions_path("test", "plain"), replace(train, meta={**train.meta, "set": "test"}))
    refused(run, spec, LeakError, f"images of other parts: {len(train)} of train", 3)
    found = evaluate(run, spec, accept_leak="to show what it flatters")
    assert found.metrics["accepted_leak"] == "to show what it flatters"
    assert "LEAK ACCEPTED, NOT A FAIR RESULT: to show what it flatters" in found.page.read_text()
    assert "LEAK ACCEPTED" in "\n".join(found.lines())


def test_file_of_another_set_or_recipe_is_refused(judged):
    run, spec = judged(COUNTS)
    val = run.predictions_path("val", "plain").read_bytes()
    run.predictions_path("test", "plain").write_bytes(val)
    refused(run, spec, DataError, "are of set val, recipe plain, not of set test", 3)


def test_one_training_image_among_the_test_images_is_enough(judged):
    run, spec = judged(COUNTS)
    train = read_predictions(run.predictions_path("train", "plain"))

    def add(p):
        logits = np.vstack([p.logits, train.logits[:1]])
        labels = np.append(p.labels, train.labels[0])
        return replace(p, ids=[*p.ids, train.ids[0]], groups=[*p.groups, train.groups[0]], labels=labels, logits=logits)

    change(run, spec, add)
    refused(run, spec, LeakError, "1 of train", 3)


def test_missing_test_images_are_refused(judged):
    """Leaving out the hard ones must not go unseen."""
    run, spec = judged(COUNTS)
    change(run, spec, lambda p: take(p, np.arange(len(p) - 3)))
    refused(run, spec, DataError, r"predictions for \d+ images of the test split", 3)


def test_unknown_images_and_changed_labels_or_groups_are_refused(judged):
    run, spec = judged(COUNTS)
    path = run.predictions_path("test", "plain")
    good = path.read_bytes()
    change(run, spec, lambda p: replace(p, ids=["stranger", *p.ids[1:]]))
    refused(run, spec, DataError, "1 of .* are of images that no part holds", 3)
    path.write_bytes(good)
    change(run, spec, lambda p: replace(p, labels=(p.labels + 1) % 3))
    refused(run, spec, DataError, "labels or groups of the predictions are not the manifest's", 3)
    path.write_bytes(good)
    change(run, spec, lambda p: replace(p, groups=[str(k) for k in range(len(p))]))
    refused(run, spec, DataError, "labels or groups of the predictions are not the manifest's", 3)
    path.write_bytes(good)
    evaluate(run, spec)


def test_predictions_of_another_manifest_and_a_changed_manifest_are_refused(judged):
    run, spec = judged(COUNTS)
    change(run, spec, lambda p: replace(p, meta={**p.meta, "manifest_sha256": "0" * 64}))
    refused(run, spec, DataError, "belong to another manifest.parquet", 3)
    run2, spec2 = judged(COUNTS, name="other")
    with run2.manifest_path.open("ab") as stream:
        stream.write(b"x")
    refused(run2, spec2, DataError, "manifest.parquet|another manifest", 3)


def test_nan_and_damaged_predictions_are_refused(judged):
    """FAULTS 35; Predictions cannot even hold NaN, so the file is made by hand."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    run, spec = judged(COUNTS)
    path = run.predictions_path("test", "plain")
    table = pq.read_table(path)
    values = np.array(table["logits"].to_pylist(), dtype=np.float32)
    values[4, 1] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 3)
    at = table.column_names.index("logits")
    pq.write_table(table.set_column(at, "logits", column), path)
    refused(run, spec, ModelError, "1 of .* rows have NaN or infinite logits", 4)
    path.write_bytes(path.read_bytes()[:-100])
    refused(run, spec, ModelError, "damaged", 4)
    path.unlink()
    refused(run, spec, UsageError, "run first: dermalyze score", 2)


def test_other_classes_are_refused(judged):
    run, spec = judged(COUNTS)
    change(run, spec, lambda p: replace(p, meta={**p.meta, "classes": ["nv", "mel", "bkl"]}))
    refused(run, spec, ModelError, "the predictions have classes", 4)


def test_constant_probabilities_are_reported_as_chance(judged):
    """FAULTS 35: ties everywhere; AUROC is one half, not an error."""
    run, spec = judged(COUNTS)
    change(run, spec, lambda p: replace(p, logits=np.zeros_like(p.logits)))
    m = evaluate(run, spec).metrics
    assert m["metrics"]["macro_auroc"]["value"] == 0.5
    assert m["metrics"]["log_loss"]["value"] == pytest.approx(np.log(3))
    assert m["per_class"]["nv"]["precision"]["value"] is None  # the first class is called throughout
    assert m["metrics"]["macro_precision"]["note"].endswith("no image called mel, nv")


def test_shuffled_labels_are_chance(judged):
    """FAULTS 36, the negative control: logits of the wrong images, labels untouched."""
    run, spec = judged({"bkl": 60, "mel": 60, "nv": 60}, skill=4.0)
    real = evaluate(run, spec).metrics["metrics"]["macro_auroc"]
    assert real["value"] > 0.95
    assert real["low"] > 0.8
    change(run, spec, lambda p: replace(p, logits=p.logits[np.random.default_rng(1).permutation(len(p))]))
    shuffled = evaluate(run, spec).metrics["metrics"]["macro_auroc"]
    assert shuffled["low"] < 0.5 < shuffled["high"]


def test_reason_given_in_training_stands_on_the_report(judged):
    run, spec = judged(COUNTS)
    change(run, spec, lambda p: replace(p, meta={**p.meta, "accepted_leak": "the published split"}))
    found = evaluate(run, spec)
    assert found.metrics["accepted_leak"] == "the published split"
    assert "the published split" in found.page.read_text()


def test_reason_is_not_stamped_where_nothing_leaks_and_must_not_be_empty(judged):
    run, spec = judged(COUNTS)
    refused(run, spec, UsageError, "needs a reason", 2, accept_leak="  ")
    assert evaluate(run, spec, accept_leak="just in case").metrics["accepted_leak"] is None


def test_refused_evaluation_leaves_an_earlier_report_whole(judged):
    run, spec = judged(COUNTS)
    evaluate(run, spec)
    before = {path.name: path.read_bytes() for path in run.report_dir.iterdir()}
    change(run, spec, lambda p: take(p, np.arange(3)))
    with pytest.raises(DataError):
        evaluate(run, spec)
    assert {path.name: path.read_bytes() for path in run.report_dir.iterdir()} == before


# -- other sets ------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path, make_artifact):
    """A prepared and split run on images of two classes, with a stand-in artifact."""
    from dermalyze.config.experiment import build_experiment
    from dermalyze.core.run import Run
    from dermalyze.stages.prepare import prepare
    from dermalyze.stages.split import split

    pictures(tmp_path / "own", 14, seed=0)
    spec = build_experiment(
        {"data": {"source": {"kind": "folder"}, "path": str(tmp_path / "own"), "workers": 0}, "evaluate": {"resamples": 100}}
    )
    run = Run.create(tmp_path / "run", spec)
    prepare(run, spec)
    split(run, spec)
    make_artifact(run.artifact_dir, classes=("mel", "nv"), created_from={"manifest_sha256": run.manifest_hash()})
    return run, spec, tmp_path


def pictures(root, n, seed, names=("mel", "nv")):
    generator = np.random.default_rng(seed)
    for name in names:
        (root / name).mkdir(parents=True)
        for k in range(n):
            Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(root / name / f"DOE_{k}.png")


def test_external_set_is_judged_in_its_own_folder(trained):
    run, spec, root = trained
    pictures(root / "Clinic B (2020)", 8, seed=1)
    found = evaluate(run, spec, on=root / "Clinic B (2020)")
    assert found.page.parent == run.external_report_dir("clinic-b-2020")
    m = json.loads((found.page.parent / "evaluation_metrics.json").read_text())
    assert (m["set"], m["n_images"], m["accepted_leak"]) == ("clinic-b-2020", 16, None)
    assert m["external"]["labels"] == [{"label": x, "class": x, "images": 8} for x in ("mel", "nv")]
    assert "None of its images was used to make the model" in m["external"]["sentence"]
    assert "DOE_" not in found.page.read_text()  # with the underscore: three letters alone also come up in images as base64
    stored = read_predictions(run.predictions_path("clinic-b-2020", "plain"))
    assert len(stored) == 16
    assert stored.embedding is not None
    assert not (run.report_dir / "evaluation_metrics.json").exists()


def test_external_answers_are_those_of_the_artifact(trained):
    from dermalyze.artifact.artifact import Artifact
    from dermalyze.data.sources import pseudonym
    from dermalyze.imaging.decode import Preprocessing, decode, to_size

    run, spec, root = trained
    pictures(root / "other", 3, seed=2)
    evaluate(run, spec, on=root / "other")
    stored = read_predictions(run.predictions_path("other", "plain"))
    artifact = Artifact.open(run.artifact_dir)
    pixels = to_size(decode((root / "other/nv/DOE_1.png").read_bytes()).pixels, Preprocessing.from_dict(artifact.preprocessing))
    row = stored.ids.index(pseudonym("nv/DOE_1.png"))
    np.testing.assert_allclose(stored.logits[row], artifact.run(pixels[None])[0][0], atol=1e-6)
    assert stored.classes[stored.labels[row]] == "nv"


def test_set_the_model_was_made_with_is_refused_by_bytes_and_by_pixels(trained):
    run, spec, root = trained
    used = sum(run.certificate()["counts"][part]["images"] for part in ("train", "val", "cal"))
    refused(run, spec, LeakError, f"own: {used} of 28 images were used to make this model", 3, on=root / "own")
    for path in (root / "own").rglob("*.png"):  # the same pixels in other bytes
        target = root / "copy" / path.parent.name / path.name.replace(".png", ".bmp")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(target)
    refused(run, spec, LeakError, f"copy: {used} of 28 images", 3, on=root / "copy")
    assert not run.predictions_path("copy", "plain").exists()
    found = evaluate(run, spec, on=root / "copy", accept_leak="a drill")
    assert found.metrics["accepted_leak"].startswith("a drill (")
    assert "LEAK ACCEPTED, NOT A FAIR RESULT: a drill" in found.page.read_text()
    assert read_predictions(run.predictions_path("copy", "plain")).meta["accepted_leak"].startswith("a drill (")


def test_label_map_maps_and_leaves_out(trained):
    run, spec, root = trained
    pictures(root / "far", 6, seed=3, names=("melanoma", "naevus", "wart"))
    refused(run, spec, DataError, r"labels 'melanoma' \(6 images.*map them with --label-map", 3, on=root / "far")
    (root / "map.yaml").write_text("melanoma: mel\nnaevus: nv\nwart: null\n")
    m = evaluate(run, spec, on=root / "far", label_map=root / "map.yaml").metrics
    assert m["n_images"] == 12
    assert {"label": "wart", "class": None, "images": 6} in m["external"]["labels"]
    (root / "map.json").write_text('{"melanoma": "melanom"}')
    with pytest.raises(ConfigError, match=r"label map: leads to \['melanom'\]"):
        evaluate(run, spec, on=root / "far", label_map=root / "map.json")
    (root / "bad.yaml").write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="must be a mapping"):
        evaluate(run, spec, on=root / "far", label_map=root / "bad.yaml")


def test_csv_beside_its_images(trained):
    run, spec, root = trained
    pictures(root / "table", 6, seed=4)
    rows = [f"{name}/DOE_{k}.png,{name},L{k // 2}" for name in ("mel", "nv") for k in range(6)]
    (root / "table" / "cohort.csv").write_text("path,label,lesion_id\n" + "\n".join(rows) + "\n")
    m = evaluate(run, spec, on=root / "table" / "cohort.csv").metrics
    assert (m["set"], m["n_images"], m["n_groups"]) == ("cohort", 12, 3)


def test_unreadable_images_are_left_out_up_to_the_limit(trained):
    run, spec, root = trained
    pictures(root / "torn", 6, seed=5)
    (root / "torn/mel/DOE_0.png").write_bytes(b"")
    refused(run, spec, DataError, "1 of 12 images are unusable", 3, on=root / "torn")
    lenient = spec.model_copy(update={"data": spec.data.model_copy(update={"max_bad_fraction": 0.2})})
    m = evaluate(run, lenient, on=root / "torn").metrics
    assert m["n_images"] == 11
    assert m["external"]["notes"][-1].startswith("1 of 12 images are left out: ")


def test_one_image_under_two_labels_is_refused(trained):
    run, spec, root = trained
    pictures(root / "twice", 4, seed=6)
    (root / "twice/mel/x.png").write_bytes((root / "twice/nv/DOE_0.png").read_bytes())
    refused(run, spec, DataError, r"1 image\(s\) stand under two labels", 3, on=root / "twice")


def test_nothing_there(trained):
    run, spec, root = trained
    refused(run, spec, UsageError, "nowhere: is not there", 2, on=root / "nowhere")


def test_recalibration_needs_enough_groups_before_any_work(trained):
    run, spec, root = trained
    pictures(root / "small", 8, seed=7)
    refused(run, spec, DataError, "5 of the set's 16 groups to fit on and 11", 3, on=root / "small", share=0.3)
    refused(run, spec, ConfigError, "must be a share", 2, on=root / "small", share=1.5)
    assert not run.predictions_path("small", "plain").exists()


def test_another_set_is_laid_beside_the_training_part_by_its_metadata(trained):
    """Columns of a CSV become subgroups; a part of its lesions shows what recalibration would gain."""
    from dermalyze.audit.image_statistics import measure_images
    from dermalyze.audit.quality_cache import write_statistics
    from dermalyze.data.manifest import read_manifest
    from dermalyze.data.store import ImageStore

    run, spec, root = trained
    manifest = read_manifest(run)
    write_statistics(run, manifest, measure_images(ImageStore.open(spec.data), manifest, workers=0))  # as audit does
    pictures(root / "clinic", 32, seed=8)
    known = [f"{20 + k},{'female' if k % 2 else ''},A{k % 2}" for k in range(32)]
    rows = [f"{name}/DOE_{k}.png,{name},{known[k]}" for name in ("mel", "nv") for k in range(32)]
    (root / "clinic" / "clinic.csv").write_text("path,label,age,sex,camera\n" + "\n".join(rows) + "\n")
    asked = spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"subgroups": ("camera",)})})
    found = evaluate(run, asked, on=root / "clinic" / "clinic.csv", share=0.5)
    m = found.metrics
    assert m["recalibration"]["fitted"]["groups"] == m["recalibration"]["measured"]["groups"] == 32
    by = {column["name"]: column["levels"] for column in m["subgroups"]["columns"]}
    assert by["sex"] == ["female", "unknown"]
    assert by["camera"] == ["A0", "A1"]
    assert {one["name"] for one in m["shift"]["categories"]} == {"class", "age", "sex"}
    assert {"brightness", "red", "sharpness"} <= {one["name"] for one in m["shift"]["numbers"]}
    assert m["shift"]["embedding"] is None, "nothing to compare with before score"
    page = found.page.read_text()
    assert "Recalibration" in page
    assert "Distribution shift" in page
