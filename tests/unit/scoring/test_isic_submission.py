"""Submission files: the challenge's columns in its order, probabilities whole, no formulas."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from dermalyze.errors import DataError
from dermalyze.scoring.isic_submission import CHALLENGES, submission_csv

HAM = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]


def read(text):
    return list(csv.reader(io.StringIO(text)))


def test_classes_of_a_challenge_get_its_columns():
    probs = np.random.default_rng(0).dirichlet(np.ones(7), 5)
    header, *rows = read(submission_csv([f"ISIC_{k}" for k in range(5)], probs, HAM))
    assert header == ["image", "MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    np.testing.assert_array_equal([float(row[1]) for row in rows], probs[:, 4])
    assert [sum(map(float, row[1:])) for row in rows] == pytest.approx([1] * 5)


def test_isic_2019_has_its_unknown():
    names = [name for name in CHALLENGES["ISIC 2019"] if name != "UNK"]
    header, row = read(submission_csv(["a"], np.full((1, 8), 0.125), names))
    assert header[1:] == list(CHALLENGES["ISIC 2019"])
    assert row[-1] == "0.0"


def test_other_classes_keep_names_and_order_and_are_no_formulas():
    header, row = read(submission_csv(["=1+1"], np.array([[0.5, 0.5]]), ["@b", "a"]))
    assert header == ["image", "'@b", "a"]
    assert row[0] == "'=1+1"


def test_classes_alike_are_refused():
    with pytest.raises(DataError, match="case of their letters"):
        submission_csv([], np.zeros((0, 2)), ["mel", "MEL"])
