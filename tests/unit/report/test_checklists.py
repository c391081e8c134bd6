"""Coverage tables: every item once, every place one that there is, and nothing guessed for a person."""

from __future__ import annotations

import re

import pytest

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.config.report import ReportSpec
from dermalyze.core.run import Run
from dermalyze.report.checklists import (
    ALWAYS,
    MISSING,
    PARTLY,
    REPORTED,
    Item,
    answer,
    checklists,
    coverage,
    escaped,
)
from dermalyze.report.html import template
from dermalyze.report.sections import SECTIONS as TABLES

CLAIM_2024, TRIPOD_AI, STARD_AI = (checklists()[title] for title in ("CLAIM 2024", "TRIPOD+AI", "STARD-AI"))
FILES = {
    key: f"{key}.txt" for key in ("configuration", "environment", "summary", "audit", "certificate", "history", "artifact")
}
EVERYTHING = ReportSpec(**dict.fromkeys(ReportSpec.model_fields, "x")).model_dump()

SECTIONS = TABLES["multiclass"]


def test_claim_2024_has_its_44_items_in_order():
    assert [item.number for item in CLAIM_2024] == [str(n) for n in range(1, 45)]


def test_tripod_ai_has_its_27_items_and_52_with_parts():
    numbers = [item.number for item in TRIPOD_AI]
    assert len(set(numbers)) == len(numbers) == 52
    assert list(dict.fromkeys(int(re.match(r"\d+", n)[0]) for n in numbers)) == list(range(1, 28))
    for whole in range(1, 28):
        letters = [n.removeprefix(str(whole)) for n in numbers if re.match(r"\d+", n)[0] == str(whole)]
        assert letters in ([""], [*"abcdefg"[: len(letters)]])


def test_stard_ai_has_its_40_items_and_48_with_parts():
    numbers = [item.number for item in STARD_AI]
    parts = {"15": "abcd", "16": "abc", "17": "ab", "26": "ab", "40": "ab"}
    assert numbers == [f"{n}{letter}" for n in range(1, 41) for letter in parts.get(str(n), [""])]
    assert len(numbers) == 48


@pytest.mark.parametrize("item", [*CLAIM_2024, *TRIPOD_AI, *STARD_AI], ids=lambda item: item.number)
def test_every_place_and_every_question_exists(item):
    assert item.places or item.asks, "nobody could ever answer it"
    assert set(item.asks) <= set(ReportSpec.model_fields)
    files = {"external", *FILES}
    for place in item.places:
        key, _, words = place.partition(" ")
        assert key[1:] in {*SECTIONS, *ALWAYS} if key.startswith("#") else key in files
        if key == "configuration" and words:
            assert words in ExperimentSpec.model_fields


def test_what_is_always_on_the_page_has_its_anchor():
    source, *_ = template("report.html.jinja").environment.loader.get_source(None, "report.html.jinja")
    assert all(f'id="{key}"' in source for key in ALWAYS)


def test_the_files_are_those_that_a_run_names(tmp_path):
    run = Run(tmp_path)
    for path in (run.config_path, run.environment_path, run.summary_path, run.audit_path, run.certificate_path,
                 run.history_path, run.artifact_record_path):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    found = run.present_files()
    assert set(found) == set(FILES)
    assert all((tmp_path / name).is_file() for name in found.values())


def test_every_question_of_report_yaml_is_asked_by_a_checklist():
    asked = {field for items in checklists().values() for item in items for field in item.asks}
    assert asked == set(ReportSpec.model_fields)


def test_without_a_person_nothing_personal_is_reported():
    m = {"files": FILES, "person": {}}
    for found in coverage(m, list(SECTIONS)):
        items = {item.number: item for item in checklists()[found["title"]]}
        for row in found["rows"]:
            item = items[row["number"]]
            if item.asks:
                assert row["state"] == (PARTLY if row["places"] else MISSING)
                assert row["said"] == []
    claim = {row["number"]: row["state"] for row in coverage(m, list(SECTIONS))[0]["rows"]}
    assert claim["44"] == claim["34"] == claim["14"] == MISSING


def test_with_a_person_and_a_whole_run_everything_is_reported():
    for found in coverage({"files": FILES, "person": EVERYTHING}, list(SECTIONS)):
        assert found["counts"] == {REPORTED: len(found["rows"]), PARTLY: 0, MISSING: 0}


def test_an_empty_run_answers_only_by_what_is_always_on_the_page():
    for found in coverage({"files": {}, "person": {}}, []):
        for row in found["rows"]:
            assert {place["anchor"] for place in row["places"]} <= set(ALWAYS)


def test_half_of_what_is_asked_is_in_part():
    item = Item("1", "two", (), ("funding", "conflicts"))
    state = [
        answer(item, {"files": {}, "person": p}, ())["state"]
        for p in ({}, {"funding": "a"}, {"funding": "a", "conflicts": "b"})
    ]
    assert state == [MISSING, PARTLY, REPORTED]


def test_names_are_our_own_and_short():
    assert all(len(item.name) <= 60 for items in checklists().values() for item in items)


def test_a_persons_words_are_no_markup():
    assert escaped("a | b\n# <script>") == "a \\| b \\# &lt;script&gt;"
