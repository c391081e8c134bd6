"""plot-embeddings, similar, linear-probe and audit --labels where each image has any number of labels, some of them unknown."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted_labels import LABELS, label_spec, paint_set

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
