"""Code that serves all modalities names no organ and no disease; the words that people read come from the modality's row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "dermalyze"

WORDS = ("lesion", "skin", "melanoma", "dermoscop")
SUFFIXES = (".py", ".js", ".html", ".css")
MAY = (
    "config/classes.py",  # classes of data sets
    "config/data.py",  # sources and modalities by name
    "config/legacy.py",  # words of a file that is read
    "audit/label_errors.py",  # the level of lesion_id, as in the next ones
    "data/grouping.py",
    "stages/evaluate.py",
    "stages/prepare.py",
    "workflows/paired.py",
    "workflows/runs.py",
    "cli/datasets.py",  # the synthetic set paints lesions
    "cli/table.py",  # examples
    "data/catalog.py",  # titles of data sets
    "data/sources/",
    "data/synthetic/",
    "imaging/abcd.py",
    "imaging/inpaint.py",
    "imaging/modalities.py",
    "imaging/preprocess.py",  # the modality of images of which nothing else is said
    "imaging/photo_artifacts.py",
    "imaging/skin_tone.py",
    "serve/predictor/packaged.py",  # names the packaged model
    "serve/small/",
)
"""Files and folders about images of skin, or about columns of the manifest. All else serves every modality."""
NOT_YET = ("report/",)
"""Not counted."""
TOKENS = re.compile(
    r"lesion_ids?\b|lesion_names|\w*shares?d?_lesions|class_lesions|images_per_lesion|duplicate_lesions|mixed_lesions?\b|by_lesion"
    r"|first_of_each_lesion|\"lesions?\"|'lesions?'|image\|lesion"  # levels and fields that follow from the column
    r"|(?:patient|image)s?(?:,| or| and) lesions?|lesions? (?:or|and) patients?"
    r"|skin_tone|SkinTone|skin_share|skin tone|(?-i:\bMELANOMA\b)"  # names of code that is about skin
    r"|modality\(\"dermoscopy\"\)",
    flags=re.I,
)
"""What may be said anywhere."""


def count(text: str) -> dict[str, int]:
    """How often each word is in a text, in any case, outside of the allowed tokens."""
    text = TOKENS.sub(" ", re.sub(r"\b(?:asking|masking)\b", " ", text)).lower()
    return {word: text.count(word) for word in WORDS if word in text}


def left() -> dict[str, int]:
    """`path: word` to how often it is there."""
    files = [path for path in sorted(SOURCE.rglob("*")) if path.suffix in SUFFIXES]
    named = {path.relative_to(SOURCE).as_posix(): path for path in files}
    return {
        f"{name}: {word}": number
        for name, path in named.items()
        if not name.startswith((*MAY, *NOT_YET))
        for word, number in count(path.read_text(encoding="utf-8")).items()
    }


def test_no_word_of_one_modality_is_used() -> None:
    found = left()
    assert not found, f"take the modality's words (imaging/modalities.py), or write image, group, subject, foreground: {found}"


@pytest.mark.parametrize("path", [*MAY, *NOT_YET])
def test_what_may_hold_them_exists(path: str) -> None:
    assert (SOURCE / path).exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A lesion on skin.", {"lesion": 1, "skin": 1}),
        ("def lesion_area(): ...", {"lesion": 1}),
        ("Dermoscopic images of melanomas", {"melanoma": 1, "dermoscop": 1}),
        ('frame["lesion_id"], asking; the patient or lesion', {}),
    ],
)
def test_words_are_counted(text: str, found: dict[str, int]) -> None:
    assert count(text) == found
