"""Code that serves all modalities names no organ and no disease; the words that people read come from the modality's row.

`modality_words_left.txt` counts what is left, as `path: word: count`. It can only shrink: the test fails when a count grows,
and when one has shrunk and the list still has the old count. After removing words, write the list again with

    python tests/architecture/test_modality_words.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "dermalyze"
LEFT = Path(__file__).with_name("modality_words_left.txt")

WORDS = ("lesion", "skin", "melanoma", "dermoscop")
SUFFIXES = (".py", ".js", ".html", ".css")
MAY = (
    "config/classes.py",  # classes of data sets
    "config/data.py",  # sources and modalities by name
    "config/legacy.py",  # words of a file that is read
    "data/catalog.py",  # titles of data sets
    "data/sources/",
    "data/synthetic/",
    "imaging/abcd.py",
    "imaging/inpaint.py",
    "imaging/modalities.py",
    "imaging/photo_artifacts.py",
    "imaging/skin_tone.py",
    "serve/predictor/packaged.py",  # names the packaged model
    "serve/small/",
)
"""Files and folders about images of skin. All else serves every modality."""
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


def listed() -> dict[str, int]:
    lines = LEFT.read_text(encoding="utf-8").splitlines()
    return {key: int(number) for key, _, number in (line.rpartition(": ") for line in lines)}


def test_words_of_one_modality_only_become_fewer() -> None:
    now, then = left(), listed()
    grown = {key: number for key, number in now.items() if number > then.get(key, 0)}
    assert not grown, f"take the modality's words (imaging/modalities.py), or write image, group, subject, foreground: {grown}"
    shrunk = {key: number for key, number in then.items() if number > now.get(key, 0)}
    assert not shrunk, f"fewer than listed; run: python {Path(__file__).relative_to(ROOT)}: {shrunk}"


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


if __name__ == "__main__":
    before = sum(listed().values()) if LEFT.exists() else 0
    LEFT.write_text("".join(f"{key}: {number}\n" for key, number in sorted(left().items())), encoding="utf-8")
    sys.stdout.write(
        f"{before} before, {sum(left().values())} left in {len({key.partition(': ')[0] for key in left()})} files\n"
    )
