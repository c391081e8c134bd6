from __future__ import annotations

from pathlib import Path

import pytest

from dermalyze.config.zero_shot import load_zero_shot
from dermalyze.errors import ConfigError

GOOD = """
weights: clip.safetensors
templates: ["a photo of {}.", "dermoscopy of {}."]
prompts: {mel: melanoma, nv: [a mole, a naevus]}
"""


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "prompts.yaml").write_text(text)
    return tmp_path / "prompts.yaml"


def test_every_template_is_said_with_every_name(tmp_path: Path) -> None:
    spec = load_zero_shot(write(tmp_path, GOOD))
    assert spec.sentences("mel") == ["a photo of melanoma.", "dermoscopy of melanoma."]
    assert spec.sentences("nv") == [
        "a photo of a mole.", "dermoscopy of a mole.", "a photo of a naevus.", "dermoscopy of a naevus.",
    ]  # fmt: skip
    spec.check_classes(["nv", "mel"], "prompts.yaml")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["mel", "nv", "bcc", "df"], "no prompt of bcc, df;"),
        (["mel"], "prompts of nv, not classes of the run"),
        (["mel", "nvv"], "no prompt of nvv"),
    ],
)
def test_prompts_of_other_classes_are_refused_with_the_names(tmp_path: Path, classes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_zero_shot(write(tmp_path, GOOD)).check_classes(classes, "prompts.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "weights"),
        ("prompts: {mel: a}", "weights"),
        ("weights: a\nprompts: {}", "prompts"),
        ("weights: a\nprompts: {mel: }", "'mel' has no prompt"),
        ("weights: a\nprompts: {mel: []}", "'mel' has no prompt"),
        ("weights: a\nprompts: {mel: ['']}", "prompts"),
        ("weights: a\nprompts: [mel]", "prompts"),
        ("weights: a\nprompts: {mel: b}\ntemplates: [a photo]", r"must hold \{\} once"),
        ("weights: a\nprompts: {mel: b}\ntemplates: ['{} and {}']", r"must hold \{\} once"),
        ("weights: a\nprompts: {mel: b}\ntemplates: ['{0}']", r"must hold \{\} once"),
        ("weights: a\nprompts: {mel: b}\ntemplates: []", "templates"),
        ("weights: a\nprompts: {mel: b}\ntemplate: ['{}']", "did you mean 'templates'"),
        ("weights: a\nprompts: {mel: b}\nname: ../x", "name"),
        ("weights: !!python/object/apply:os.system [ls]\nprompts: {mel: b}", "plain YAML"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_zero_shot(write(tmp_path, text))
