"""report.yaml: named answers, nothing else."""

from __future__ import annotations

import pytest

from dermalyze.config.report import ReportSpec, dump_report, load_report
from dermalyze.errors import ConfigError


def test_answers_read_back(tmp_path):
    path = tmp_path / "report.yaml"
    path.write_text("funding: none\nethics: |\n  Waived: public data.\n")
    answers = load_report(path)
    path.write_text(dump_report(answers))
    assert load_report(path) == answers
    assert answers.funding == "none"
    assert answers.title is None
    assert "title" not in path.read_text()


def test_an_empty_file_answers_nothing(tmp_path):
    (tmp_path / "report.yaml").write_text("")
    assert load_report(tmp_path / "report.yaml") == ReportSpec()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fundings: me", r"report.yaml: .*fundings.*funding"),
        ("funding: yes", "funding"),
        ("funding: ''", "funding"),
        ("- funding", "must be a mapping"),
        ("funding: !!python/object/apply:os.system ['true']", "only plain YAML"),
    ],
)
def test_what_is_no_answer_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "report.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_report(tmp_path / "report.yaml")
    assert "\n" not in str(caught.value)


def test_every_field_says_what_it_asks():
    assert all(field.description for field in ReportSpec.model_fields.values())
