"""plot-embeddings, similar, linear-probe and audit --labels where each image has any number of labels, some of them unknown."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted_labels import LABELS, label_spec, paint_set
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import dermalyze
from dermalyze.core.run import Run, read_json
from dermalyze.data.splitting import read_part
from dermalyze.errors import UsageError
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.tasks.answering import Answering


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained, scored and calibrated; of every fifth image nobody knows whether it has a disc."""
    root = tmp_path_factory.mktemp("features")
    data = paint_set(root / "data", images=120, columns=False)
    head, *rows = (data / "set.csv").read_text().splitlines()
    for n in range(0, len(rows), 5):
        start, _, text = rows[n].rpartition(",")
        known = [name for name in text.split("|") if name not in ("", "disc")]
        rows[n] = f"{start},{'|'.join([*known, '?disc'])}"
    (data / "set.csv").write_text("\n".join([head, *rows]) + "\n")
    spec = label_spec(data, data={"source": {"kind": "csv", "extension": ".png"}})
    made = Run.create(root / "run", spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(root / "cache"))
        for step in ("prepare", "split", "train", "export", "score", "calibrate"):
            getattr(dermalyze, step)(made, spec)
    return made


def stored(run: Run, part: str = "test") -> Predictions:
    return read_predictions(run.predictions_path(part, "plain"))


def on_page(page: Path) -> dict[str, Any]:
    return dict(json.loads(page.read_text().partition('id="data">')[2].partition("</script>")[0]))


def test_a_map_is_colored_by_label_sets_and_an_error_is_a_wrong_label(run: Run) -> None:
    found = dermalyze.plot_embeddings(run, run.config(), method="pca")
    p, shown = stored(run), on_page(found.page)
    assert found.points == len(p) == len(shown["words"])
    assert found.figure.exists()
    assert set(shown["by"]) == {"label set", "error"}
    texts = read_part(run, "test")["label"].astype(str)
    assert {mark["name"]: mark["n"] for mark in shown["by"]["label set"]["marks"]} == Counter(texts)
    record = read_json(run.calibration_path("plain"))["calibration"]
    probs = Answering.read("multilabel", p.classes, "plain", record).probabilities(p.logits)
    called = probs >= np.array([record["thresholds"][name] for name in p.classes])
    wrong = sum(any(t != -1 and bool(t) != c for t, c in zip(*row, strict=True)) for row in zip(p.labels, called, strict=True))
    marks = {mark["name"]: mark["n"] for mark in shown["by"]["error"]["marks"]}
    assert marks.get("wrong", 0) == wrong
    assert marks.get("right", 0) == len(p) - wrong
    assert "class" not in found.page.read_text().partition("<body")[2].partition('id="data"')[0].replace("class=", "")


def test_a_map_of_one_label_tells_missing_targets_apart(run: Run) -> None:
    found = dermalyze.plot_embeddings(run, run.config(), method="pca", by="disc", part="all")
    assert found.figure.exists()
    assert "disc" in found.figure.name
    marks = {mark["name"]: mark["n"] for mark in on_page(found.page)["by"]["disc"]["marks"]}
    disc = np.concatenate([stored(run, part).labels[:, LABELS.index("disc")] for part in ("train", "val", "cal", "test")])
    assert marks == {"present": int((disc == 1).sum()), "absent": int((disc == 0).sum()), "not known": int((disc == -1).sum())}
    assert marks["not known"] == 24
    with pytest.raises(UsageError, match=r"--by dics: must be one of .*did you mean"):
        dermalyze.plot_embeddings(run, run.config(), by="dics")


def test_similar_shares_are_of_each_label_where_it_is_known(run: Run, tmp_path: Path) -> None:
    spec, p, query = run.config(), stored(run, "train"), stored(run)
    image = Path(str(spec.data.path)) / f"{query.ids[0]}.png"
    found = dermalyze.similar(run, spec, image, k=8, out=tmp_path / "sheet.html")
    assert p.embedding is not None
    assert query.embedding is not None
    unit = p.embedding / np.linalg.norm(p.embedding, axis=1, keepdims=True)
    far = 1 - unit @ (query.embedding[0] / np.linalg.norm(query.embedding[0]))
    nearest: dict[str, int] = {}
    for row in np.argsort(far, kind="stable"):
        nearest.setdefault(p.groups[row], int(row))
    rows = list(nearest.values())[:8]
    assert [one.image_id for one in found.neighbours] == [p.ids[row] for row in rows]
    np.testing.assert_allclose([one.distance for one in found.neighbours], far[rows], atol=1e-5)
    texts = dict(read_part(run, "train")[["image_id", "label"]].itertuples(index=False))
    assert [one.label for one in found.neighbours] == [texts[one.image_id] for one in found.neighbours]
    for c, name in enumerate(LABELS):
        asked = p.labels[rows, c][p.labels[rows, c] >= 0]
        assert found.shares.get(name, 0.0) == pytest.approx(asked.mean())
    assert list(found.shares.values()) == sorted(found.shares.values(), reverse=True)
    text = " ".join(found.lines())
    assert "class" not in text
    assert f"{next(iter(found.shares))} {next(iter(found.shares.values())):.0%}" in (tmp_path / "sheet.html").read_text()
    assert json.loads(json.dumps(found.as_dict()))["shares"] == found.shares
    dermalyze.similar(run, spec, image, k=3, out=tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()


@pytest.fixture(scope="module")
def probed(run: Run) -> Any:
    return dermalyze.linear_probe(run, run.config())


def features_of(run: Run, part: str) -> np.ndarray:
    embedding = stored(run, part).embedding
    assert embedding is not None
    return embedding.astype(np.float64)


def test_the_linear_probe_is_one_logistic_regression_per_label(run: Run, probed: Any) -> None:
    rows = {row["name"]: row for row in probed.values["models"]}
    assert list(rows) == ["trained", "linear-probe", "nearest-neighbours"]
    chosen = rows["linear-probe"]["chosen"]
    assert chosen["C"] == float(min(chosen["val_log_loss"], key=chosen["val_log_loss"].get))
    scaler = StandardScaler().fit(features_of(run, "train"))

    def theirs(strength: float, part: str) -> np.ndarray:
        columns = []
        for c in range(len(LABELS)):
            target = stored(run, "train").labels[:, c]
            model = LogisticRegression(C=strength, tol=1e-3, max_iter=300)
            model.fit(scaler.transform(features_of(run, "train"))[target >= 0], target[target >= 0])
            columns.append(model.predict_proba(scaler.transform(features_of(run, part)))[:, 1])
        return np.stack(columns, axis=1)

    val = stored(run, "val").labels
    for strength, loss in chosen["val_log_loss"].items():
        assert loss == pytest.approx(log_loss(val[val >= 0], theirs(float(strength), "val")[val >= 0]), abs=1e-4)
    path = next(path for path in probed.files if path.name.startswith("test-by-linear-probe"))
    p = read_predictions(path)
    assert p.meta["task"] == "multilabel"
    np.testing.assert_array_equal(p.labels, stored(run).labels)
    np.testing.assert_allclose(p.probs(), theirs(chosen["C"], "test"), atol=1e-4)
    assert_metrics(rows["linear-probe"], p)
    assert_metrics(rows["trained"], stored(run))


def assert_metrics(row: dict[str, Any], p: Predictions) -> None:
    """Those of scikit-learn, label by label where the target is known."""
    asked = p.labels >= 0
    each = [roc_auc_score(p.labels[asked[:, c], c], p.probs()[asked[:, c], c]) for c in range(len(LABELS))]
    precision = [average_precision_score(p.labels[asked[:, c], c], p.probs()[asked[:, c], c]) for c in range(len(LABELS))]
    assert [row["auroc"][name]["value"] for name in LABELS] == pytest.approx(each)
    assert row["metrics"]["macro_auroc"]["value"] == pytest.approx(np.mean(each))
    assert row["metrics"]["macro_average_precision"]["value"] == pytest.approx(np.mean(precision))
    together = average_precision_score(p.labels[asked], p.probs()[asked])
    assert row["metrics"]["micro_average_precision"]["value"] == pytest.approx(together)
    assert row["metrics"]["macro_auroc"]["low"] <= row["metrics"]["macro_auroc"]["value"]


def test_neighbors_vote_per_label_among_images_where_it_is_known(run: Run, probed: Any) -> None:
    row = next(row for row in probed.values["models"] if row["name"] == "nearest-neighbours")
    k, train = int(row["chosen"]["k"]), stored(run, "train").labels
    p = read_predictions(next(path for path in probed.files if path.name.startswith("test-by-nearest")))
    for c in range(len(LABELS)):
        known = train[:, c] >= 0
        model = KNeighborsClassifier(k, weights="distance", metric="cosine", algorithm="brute")
        model.fit(features_of(run, "train")[known], train[known, c])
        prior = 0.99 * train[known, c].mean() + 0.01 / 2
        expected = (k * model.predict_proba(features_of(run, "test"))[:, 1] + prior) / (k + 1)
        np.testing.assert_allclose(p.probs()[:, c], expected, atol=1e-4)
    assert_metrics(row, p)


def test_few_examples_of_each_label_and_what_a_person_reads(run: Run, probed: Any) -> None:
    one, *_, twenty = probed.values["few_shot"]
    assert one["metrics"]["macro_auroc"]["value"] == pytest.approx(np.mean([one["auroc"][name]["value"] for name in LABELS]))
    assert 0.4 < one["metrics"]["macro_auroc"]["value"] < 1
    assert twenty["metrics"]["macro_auroc"]["note"].endswith("a label has fewer than 20 training groups")
    text = "\n".join(probed.lines())
    assert "macro AUROC" in text
    assert "label centers of 5 examples a label" in text
    assert "class" not in text
    assert read_json(run.linear_probe_path("own")) == probed.values


def test_zero_shot_is_refused_before_the_file_is_read(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="embed --clip: needs zero_shot, which task multilabel lacks"):
        dermalyze.embed(run, run.config(), clip=tmp_path / "gone.yaml")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A set of which eight images have the wrong frame; the run, the result, and these images."""
    root = tmp_path_factory.mktemp("audited")
    data = paint_set(root / "data", images=160)
    head, *rows = (data / "set.csv").read_text().splitlines()
    turned = set()
    for n in range(3, 160, 20):
        values = rows[n].split(",")
        values[-1] = str(1 - int(values[-1]))
        rows[n] = ",".join(values)
        turned.add(values[0])
    (data / "set.csv").write_text("\n".join([head, *rows]) + "\n")
    spec = label_spec(data)
    run = Run.create(root / "run", spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(root / "cache"))
        dermalyze.prepare(run, spec)
        return run, dermalyze.audit(run, spec, labels=True), turned


def test_wrong_entries_are_suspected_and_shown(audited: Any) -> None:
    run, found, turned = audited
    written = read_json(run.audit_path)["labels"]
    assert [row["label"] for row in written["by_label"]] == list(LABELS)
    assert (written["images"], written["entries"]) == (160, 480)
    suspected = [error for error in written["errors"] if error["about"] == "frame"]
    assert len(turned & {error["image_id"] for error in suspected}) >= 6
    assert all({error["label"], error["suggested"]} == {"absent", "present"} for error in suspected)
    assert 0 <= written["macro_auroc"]["low"] <= written["macro_auroc"]["value"] <= 1
    page = run.audit_page_path.read_text()
    assert "Likely label errors" in page
    assert "frame absent? looks present" in page or "frame present? looks absent" in page
    text = "\n".join(found.labels.lines())
    assert "frame: 160 images" in text
    assert "class" not in text
