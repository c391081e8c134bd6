"""Runs on the same images: what is compared, what is refused, and that the numbers are those of the runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stored_run import make_judged
from typer.testing import CliRunner

from dermalyze.cli import app
from dermalyze.core.result import DISCLAIMER
from dermalyze.errors import DataError, ModelError, UsageError
from dermalyze.scoring.predictions import read_predictions, write_predictions
from dermalyze.workflows.paired import compare_runs, whole_groups
from dermalyze.workflows.runs import runs

COUNTS = {"df": 24, "mel": 30, "nv": 70}


@pytest.fixture
def two(judged: Any) -> tuple[Any, Any]:
    """The same split, other scores."""
    return judged(COUNTS, name="a", skill=3.0)[0], judged(COUNTS, name="b", skill=1.0, seed=0)[0]


def change(run: Any, make: Any) -> None:
    path = run.predictions_path("test", "plain")
    write_predictions(path, make(read_predictions(path)))


def test_values_are_those_of_evaluate_and_differences_are_theirs(two: Any) -> None:
    from dermalyze.stages.evaluate import evaluate

    a, b = two
    values, _ = compare_runs([a.root, b.root])
    for run in two:
        own = evaluate(run, run.config()).metrics["metrics"]
        for name, estimate in values["values"][run.root.name].items():
            assert estimate["value"] == pytest.approx(own[name]["value"]), name
            assert (estimate["low"], estimate["high"]) == (own[name]["low"], own[name]["high"]), name
    (pair,) = values["pairs"]
    for name, one in pair["metrics"].items():
        assert one["value"] == pytest.approx(values["values"]["a"][name]["value"] - values["values"]["b"][name]["value"])
        assert one["p_holm"] >= one["p_value"]
    assert pair["metrics"]["accuracy"]["low"] > 0
    counts = pair["mcnemar"]
    assert sum(counts[key] for key in ("both", "first", "second", "neither")) == values["n"] == values["n_images"]
    assert not {"macro_recall", "weighted_recall"} & set(pair["metrics"])


def test_three_runs_make_three_pairs_corrected_together(two: Any, judged: Any) -> None:
    third = judged(COUNTS, name="c", skill=2.0)[0]
    values, told = compare_runs([*(run.root for run in two), third.root])
    assert [(pair["first"], pair["second"]) for pair in values["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair in values["pairs"]:
        assert pair["mcnemar"]["mid_p_holm"] >= pair["mcnemar"]["mid_p"]
    assert DISCLAIMER in told


def test_order_of_rows_and_of_runs_changes_no_more_than_the_sign(two: Any) -> None:
    a, b = two
    before = compare_runs([a.root, b.root])[0]["pairs"][0]
    order = np.random.default_rng(0).permutation(len(read_predictions(b.predictions_path("test", "plain"))))

    def shuffled(p: Any) -> Any:
        ids, groups = ([values[i] for i in order] for values in (p.ids, p.groups))
        return replace(p, ids=ids, groups=groups, labels=p.labels[order], logits=p.logits[order])

    change(b, shuffled)
    assert compare_runs([a.root, b.root])[0]["pairs"][0] == before
    turned = compare_runs([b.root, a.root])[0]["pairs"][0]
    assert turned["mcnemar"]["first"] == before["mcnemar"]["second"]
    assert turned["auroc"]["mel"]["value"] == pytest.approx(-before["auroc"]["mel"]["value"])


def test_photographs_of_a_lesion_are_one_case(two: Any) -> None:
    values, told = compare_runs([run.root for run in two], by="lesion")
    assert values["n"] == values["n_groups"] < values["n_images"]
    assert "lesions, pooled from" in told[0]
    assert sum(values["pairs"][0]["mcnemar"][key] for key in ("both", "first", "second", "neither")) == values["n"]


def test_classes_in_another_order_are_put_in_order(two: Any, judged: Any) -> None:
    from dermalyze.core.atomic import write_json
    from dermalyze.core.run import read_json

    a, b = two
    before = compare_runs([a.root, b.root])[0]["pairs"][0]["metrics"]
    classes = ["nv", "df", "mel"]
    write_json(b.summary_path, {**read_json(b.summary_path), "classes": classes})
    order = [sorted(COUNTS).index(name) for name in classes]

    def turned(p: Any) -> Any:
        labels = np.array([order.index(c) for c in p.labels])
        return replace(p, labels=labels, logits=p.logits[:, order], meta={**p.meta, "classes": classes})

    change(b, turned)
    after = compare_runs([a.root, b.root])[0]["pairs"][0]["metrics"]
    assert {k: v["value"] for k, v in after.items()} == pytest.approx({k: v["value"] for k, v in before.items()})


def test_other_splits_are_refused_and_shared_takes_what_all_have(two: Any, judged: Any) -> None:
    a, _ = two
    other = judged(COUNTS, name="other", config={"split": {"seed": 5}})[0]
    with pytest.raises(DataError, match=r"other images \(a \d+, other \d+; \d+ in all; a was made with \d+ of other.*--shared"):
        compare_runs([a.root, other.root])
    values, _ = compare_runs([a.root, other.root], shared=True)
    common = set(read_predictions(a.predictions_path("test", "plain")).ids)
    common &= set(read_predictions(other.predictions_path("test", "plain")).ids)
    assert 0 < values["n_images"] <= len(common)


def test_a_lesion_that_stands_in_another_part_of_a_run_is_no_shared_test() -> None:
    """a knows that 2 belongs to 1, and b does not have 2 in its test split; b knows that 3 belongs to 2's other lesion."""
    a = SimpleNamespace(frame=pd.DataFrame({"image_id": list("12345"), "group": list("11345")}))
    b = SimpleNamespace(frame=pd.DataFrame({"image_id": list("13456"), "group": list("13356")}))
    assert whole_groups([a, b], list("1345")) == list("345")  # type: ignore[list-item]
    c = SimpleNamespace(frame=pd.DataFrame({"image_id": list("1345"), "group": list("1145")}))
    assert whole_groups([a, b, c], list("1345")) == ["5"]  # type: ignore[list-item]


def test_a_copy_under_another_name_that_one_run_was_trained_on_is_refused(judged: Any, tmp_path: Path) -> None:
    """The other run has a test image's bytes under another id in its training split."""
    from stored_run import store_predictions

    from dermalyze.core.run import Run
    from dermalyze.data.manifest import read_manifest, write_manifest
    from dermalyze.stages.split import split

    a, _ = judged(COUNTS, name="a")
    spec = a.config()
    b = Run.create(tmp_path / "b", spec)
    frame = read_manifest(a)
    test = read_predictions(a.predictions_path("test", "plain")).ids
    copied = frame["image_id"].isin(test[:9])
    moved = frame.assign(image_id=frame["image_id"].where(~copied, "Z" + frame["image_id"]), lesion_id=None)
    b.summary_path.write_bytes(a.summary_path.read_bytes())
    write_manifest(b, moved)
    split(b, spec)
    store_predictions(b, spec)
    with pytest.raises(DataError, match=r"b was made with \d+ of a"):
        compare_runs([a.root, b.root])


def test_other_pictures_or_labels_under_the_same_ids_are_refused(two: Any, tmp_path: Path) -> None:
    a, _ = two
    strangers = make_judged(tmp_path / "strangers", COUNTS, ids="X{:05}")[0]
    with pytest.raises(DataError, match="no image in common"):
        compare_runs([a.root, strangers.root])
    fewer = make_judged(tmp_path / "fewer", {"mel": 30, "nv": 70})[0]
    with pytest.raises(ModelError, match="only runs of the same classes"):
        compare_runs([a.root, fewer.root])


def test_accepted_leaks_are_stamped(two: Any, tmp_path: Path) -> None:
    a, b = two
    change(b, lambda p: replace(p, meta={**p.meta, "accepted_leak": "the published split"}))
    values, told = compare_runs([a.root, b.root], out=tmp_path / "page.html")
    assert "b: LEAK ACCEPTED, NOT A FAIR RESULT: the published split" in told
    assert "LEAK ACCEPTED" in (tmp_path / "page.html").read_text()
    assert values["runs"][1]["accepted_leak"] == "the published split"


def test_every_number_on_the_page_stands_in_the_values(two: Any, tmp_path: Path) -> None:
    out = tmp_path / "compared.html"
    values = json.loads(json.dumps(runs("compare", [run.root for run in two], out=out).as_dict(), allow_nan=False))
    page = re.sub(r"<style>.*?</style>|data:image[^\"]*|<code>.*?</code>", "", out.read_text(), flags=re.S)
    known = {f"{abs(x):.3f}" for x in numbers(values) if isinstance(x, float)}
    shown = re.findall(r"(?<![\d.])\d\.\d{3}(?!\d)", page)
    assert len(shown) > 60
    assert set(shown) - known - {"0.001"} == set()
    assert DISCLAIMER in page
    assert "http" not in page.replace("http-equiv", "")


def numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [x for child in value.values() for x in numbers(child)]
    return [x for child in value for x in numbers(child)] if isinstance(value, list) else [value]


@pytest.mark.parametrize(
    ("options", "text"),
    [({"by": "patient"}, "must be image or lesion"), ({"out": Path("x.pdf")}, "must end in .html")],
)
def test_options_are_checked_first(options: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        compare_runs(["nowhere", "else"], **options)


def test_a_run_against_itself_and_options_of_another_action(two: Any) -> None:
    with pytest.raises(UsageError, match="named twice"):
        compare_runs([two[0].root, two[0].root])
    with pytest.raises(UsageError, match="belong to: dermalyze runs compare"):
        runs("list", [two[0].root], shared=True)
    with pytest.raises(UsageError, match="write: dermalyze runs compare"):
        runs("compare", [two[0].root])


def test_the_command_prints_a_table_and_json(two: Any) -> None:
    words = ["runs", "compare", *(str(run.root) for run in two)]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0
    assert "macro AUROC" in told.stdout
    assert "Right answers (McNemar)" in told.stdout
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert found["action"] == "compare"
    assert found["pairs"][0]["auroc"].keys() == COUNTS.keys()


def test_malignant_against_benign_is_asked_where_several_classes_are_malignant(judged: Any) -> None:
    counts, config = {"bcc": 30, "mel": 30, "nv": 60}, {"evaluate": {"malignant": ["bcc", "mel"]}}
    made = [judged(counts, name=name, skill=skill, config=config)[0] for name, skill in (("a", 3.0), ("b", 1.0))]
    found = compare_runs([run.root for run in made])[0]["pairs"][0]["auroc"]
    assert list(found) == ["bcc", "mel", "nv", "malignant (bcc, mel)"]
    assert found["malignant (bcc, mel)"]["value"] == pytest.approx(found["nv"]["value"])  # its complement
