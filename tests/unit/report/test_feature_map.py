"""Maps: what categories become, and the page, which holds no address and runs one script only."""

from __future__ import annotations

import base64
import hashlib
import io
import re

import numpy as np
import pytest
from PIL import Image

from dermalyze.report.feature_map import PATHS, colouring, even_sample, map_figure, map_page, on_page
from dermalyze.report.style import class_styles

POINTS = np.random.default_rng(0).normal(size=(40, 2)) * [3, 1]
LABELS = ["mel", "nv", "nv", "odd <b>&'\"</script>"] * 10


def page(**changes):
    made = {"class": colouring("class", LABELS), "part": colouring("part", ["train", "test"] * 20)}
    values = {"title": "t", "subtitle": "s", "caption": "Distances are no evidence.", "leak": None, **changes}
    lines = [[f"ID{i}", f"label {label}"] for i, label in enumerate(LABELS)]
    return map_page(POINTS, made, ["QUJD", None] * 20, lines, **values)


def test_classes_keep_their_colour_and_order():
    found = colouring("class", ["nv", "mel", "nv"], ["mel", "nv"])
    assert found.names == ("mel", "nv")
    assert list(found.styles) == class_styles(["mel", "nv"])
    assert found.of.tolist() == [1, 0, 1]


def test_rare_categories_share_one():
    found = colouring("site", [name for name in "abcdefghij" for _ in range(ord("k") - ord(name))])
    assert found.names == (*"abcdef", "4 others")
    assert np.bincount(found.of).tolist() == [10, 9, 8, 7, 6, 5, 10]


def test_wrong_answers_have_another_colour_and_mark_than_right_ones():
    found = colouring("error", ["right", "wrong"], ["right", "wrong"])
    right, wrong = found.styles
    assert right.marker != wrong.marker
    assert right.colour != wrong.colour


def test_the_one_script_is_named_by_its_hash_and_no_address_stands_on_the_page():
    text = page()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith(f"; script-src 'sha256-{digest}'")
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert not re.search(r"https?://|\bon\w+=", text)
    assert "Distances are no evidence." in text
    assert "not a medical device" in text


def test_words_from_a_manifest_cannot_become_markup():
    text = page()
    assert "odd <b>" not in text
    assert text.count("</script>") == 2  # the data's and the script's own


def test_every_point_stands_within_the_plot_under_its_name():
    text = page()
    places = [(float(x), float(y)) for x, y in re.findall(r'<use class="point"[^>]* x="([\d.]+)" y="([\d.]+)"', text)]
    _, width, height = (int(v) for v in re.findall(r'viewBox="0 (0) (\d+) (\d+)"', text)[0])
    assert len(places) == len(POINTS)
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    assert text.count("<title>ID") == len(POINTS)
    # up on the map is up on the page, and both axes have one scale
    placed, _ = on_page(POINTS)
    scale = np.polyfit(POINTS[:, 0], placed[:, 0], 1)[0]
    assert np.polyfit(POINTS[:, 1], placed[:, 1], 1)[0] == pytest.approx(-scale)


def test_an_accepted_leak_stands_on_page_and_figure():
    assert "comparison only" in page(leak="comparison only")
    plain, stamped = (
        map_figure(POINTS, colouring("class", LABELS), title="t", caption="c", leak=leak) for leak in (None, "comparison only")
    )
    assert Image.open(io.BytesIO(stamped)).height > Image.open(io.BytesIO(plain)).height


@pytest.mark.parametrize("names", [1, 2, 4, 7])
def test_the_figure_shows_the_colour_of_every_category(names):
    labels = [f"c{i % names}" for i in range(40)]
    found = colouring("site", labels)
    with Image.open(io.BytesIO(map_figure(POINTS, found, title="t", caption="c"))) as image:
        seen = {tuple(colour) for colour in np.asarray(image.convert("RGB")).reshape(-1, 3)[::1].tolist()}
    for style in found.styles:
        mixed = [round(0.8 * int(style.colour[i : i + 2], 16) + 0.2 * 255) for i in (1, 3, 5)]  # opacity over white
        assert any(max(abs(a - b) for a, b in zip(mixed, colour, strict=True)) <= 6 for colour in seen), style


def test_markers_of_classes_have_a_drawing():
    assert {style.marker for style in class_styles([f"c{i}" for i in range(12)])} == set(PATHS)


def test_a_sample_is_even_and_the_same_for_the_same_seed():
    labels = ["nv"] * 300 + ["mel"] * 20 + ["df"] * 5
    one, again, other = (even_sample(labels, 60, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.tolist() == again.tolist() != other.tolist()
    counts = {name: sum(labels[row] == name for row in one) for name in set(labels)}
    assert counts == {"nv": 35, "mel": 20, "df": 5}
