"""The model card: front matter that parses, and no figure that the metrics do not hold."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from stored_run import make_judged

from dermalyze.core.result import DISCLAIMER
from dermalyze.report.checklists import MISSING
from dermalyze.stages.evaluate import evaluate

FEW = {"evaluate": {"resamples": 100}}
COUNTS = {"mel": 60, "nv": 80, "vasc": 60}
NUMBER = re.compile(r"(?<![\w.:/-])\d+(?:\.\d+)?(?![\w/-])")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    run, spec = make_judged(tmp_path_factory.mktemp("card") / "run", COUNTS, config={"name": "a_name", **FEW})
    evaluate(run, spec)
    return run, json.loads(run.evaluation_path.read_text())


def parts(run):
    text = (run.report_dir / "model_card.md").read_text()
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def numbers(value):
    """Every number in a file of metrics, as a card may write it."""
    found = set()
    if isinstance(value, dict):
        for one in value.values():
            found |= numbers(one)
    elif isinstance(value, list):
        for one in value:
            found |= numbers(one)
    elif isinstance(value, bool) or value is None:
        pass
    elif isinstance(value, str):
        found |= set(NUMBER.findall(value.replace(",", "")))
    else:
        found |= {f"{value:.3f}", f"{value:g}", f"{100 * value:g}"}
    return found


def test_front_matter_parses_and_its_results_are_those_of_the_metrics(written):
    run, m = written
    front, _ = parts(run)
    assert front["pipeline_tag"] == "image-classification"
    assert front["library_name"] == "dermalyze"
    assert front["license"] == "unknown"
    assert "datasets" not in front, "a set in the layout of HAM10000 is not HAM10000"
    (entry,) = front["model-index"]
    assert entry["name"] == "a_name"
    (result,) = entry["results"]
    assert result["dataset"]["split"] == "test"
    got = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert got["accuracy"] == round(m["metrics"]["accuracy"]["value"], 3)
    assert got["roc_auc"] == round(m["metrics"]["macro_auroc"]["value"], 3)
    assert sorted(front["metrics"]) == sorted(got)


def test_every_number_of_the_body_stands_in_the_metrics(written):
    run, m = written
    _, body = parts(run)
    shown = set(NUMBER.findall(re.sub(r"`[^`]*`", "", body.replace(",", ""))))
    assert len(shown) > 40
    assert shown <= numbers(m)


def test_ham10000_brings_its_licence_and_biases(judged):
    run, spec = judged(COUNTS, config=FEW, ids="ISIC_003{:04}")
    m = evaluate(run, spec).metrics
    front, body = parts(run)
    assert m["known_biases"]
    assert front["license"] == "cc-by-nc-4.0"
    assert front["datasets"] == ["ham10000"]
    assert all(bias in body for bias in m["known_biases"])
    assert "CC BY-NC 4.0" in body


def test_the_card_says_what_it_is_not_for_and_how_it_was_split(written):
    run, m = written
    _, body = parts(run)
    assert DISCLAIMER in body
    assert all(line in body for line in m["about"]["not_for"])
    assert "Certified: nothing crosses the splits." in body
    assert all(check["name"] in body for check in m["split"]["checks"])


def test_a_persons_words_reach_card_and_tables_as_plain_text(judged, tmp_path):
    run, spec = judged(COUNTS, config=FEW)
    answers = tmp_path / "answers.yaml"
    answers.write_text("intended_use: 'teaching | <b>only</b>'\nfunding: none\n")
    evaluate(run, spec, report_yaml=answers)
    _, body = parts(run)
    assert "teaching \\| &lt;b&gt;only&lt;/b&gt;" in body
    tables = (run.report_dir / "checklists.md").read_text()
    assert "| 44 | funding | reported | “none” |" in tables
    assert "<b>" not in tables + body + run.report_page_path.read_text()
    evaluate(run, spec)
    assert "| 44 | funding | reported | “none” |" in (run.report_dir / "checklists.md").read_text(), "answers are kept"


def test_without_a_person_funding_is_not_reported(written):
    run, _ = written
    page = run.report_page_path.read_text()
    assert "of 44 items." in page
    assert "of 52 items." in page
    assert '<td>44</td><td class="wrap">funding</td><td><span class="bad">NOT&nbsp;REPORTED</span></td>' in page
    assert f"| 44 | funding | {MISSING} |  |" in (run.report_dir / "checklists.md").read_text()


def test_a_number_that_cannot_be_estimated_is_left_out_of_the_index(judged):
    run, spec = judged({"mel": 6, "nv": 40}, config={**FEW, "split": {"fractions": {"train": 0.3, "val": 0.3, "test": 0.4}}})
    evaluate(run, spec)
    front, _ = parts(run)
    assert all(isinstance(metric["value"], float) for metric in front["model-index"][0]["results"][0]["metrics"])
