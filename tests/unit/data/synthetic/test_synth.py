"""The invented set: HAM10000's layout, repeatable to the byte, classes in the lesions and nowhere else."""

from __future__ import annotations

import csv
import errno
import hashlib
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dermalyze.data.synthetic import synth
from dermalyze.data.synthetic.class_appearance import CLASSES, GROUPS, LOOKS, NEUTRAL, draw_look
from dermalyze.data.synthetic.lesion import STRUCTURES, paint_lesion
from dermalyze.data.synthetic.paint import Canvas, dots, noise, rise, strokes
from dermalyze.data.synthetic.photo import canvas_for, draw_session, paint_skin, photograph
from dermalyze.data.synthetic.plan import share_out
from dermalyze.data.synthetic.synth import contact_sheet, synthesize
from dermalyze.errors import DataError, ResourceError, UsageError

IMAGES = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MASKS = "HAM10000_segmentations_lesion_tschandl"


def rows_of(root: Path) -> list[dict[str, str]]:
    with (root / "HAM10000_metadata.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def image_path(root: Path, image_id: str) -> Path:
    (path,) = [root / folder / f"{image_id}.jpg" for folder in IMAGES if (root / folder / f"{image_id}.jpg").exists()]
    return path


def fingerprint(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def separation(features: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean over features of the share of variance that lies between classes (0..1)."""
    total = ((features - features.mean(0)) ** 2).sum(0)
    between = sum((labels == k).sum() * (features[labels == k].mean(0) - features.mean(0)) ** 2 for k in np.unique(labels))
    return float(np.mean(between / total))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """84 lesions in even classes, several images each, one worker."""
    out = tmp_path_factory.mktemp("synth") / "small"
    return synthesize(out, lesions=84, seed=3, size_px=(48, 64), balance="even", images_per_lesion=2.0, workers=1).root


# --- repeatable ------------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    one = synthesize(tmp_path / "one", lesions=10, seed=5, size_px=32, workers=1)
    again = synthesize(tmp_path / "again", lesions=10, seed=5, size_px=32, workers=1)
    two = synthesize(tmp_path / "two", lesions=10, seed=5, size_px=32, workers=2)
    assert fingerprint(one.root) == fingerprint(again.root) == fingerprint(two.root)
    assert len(fingerprint(one.root)) == 2 * one.images + 1


def test_another_seed_gives_other_pictures_and_another_table(tmp_path: Path) -> None:
    prints = [
        fingerprint(synthesize(tmp_path / str(seed), lesions=7, seed=seed, size_px=32, images_per_lesion=1, workers=1).root)
        for seed in (5, 6)
    ]
    assert prints[0].keys() & prints[1].keys() == {"HAM10000_metadata.csv"}, "sets of two seeds share no image"
    assert not set(prints[0].values()) & set(prints[1].values())


def test_sets_of_two_seeds_share_no_lesion(tmp_path: Path) -> None:
    sets = [rows_of(synthesize(tmp_path / str(seed), lesions=7, seed=seed, size_px=32, workers=1).root) for seed in (5, 6)]
    for column in ("lesion_id", "image_id"):
        assert not {row[column] for row in sets[0]} & {row[column] for row in sets[1]}


# --- layout ----------------------------------------------------------------------------------------------------------


def test_layout_is_that_of_ham10000(small: Path) -> None:
    assert sorted(path.name for path in small.iterdir()) == sorted([*IMAGES, MASKS, "HAM10000_metadata.csv"])
    table = (small / "HAM10000_metadata.csv").read_bytes()
    assert table.startswith(b"lesion_id,image_id,dx,dx_type,age,sex,localization\nHAM_9")
    assert b"\r" not in table
    assert table.endswith(b"\n")
    rows = rows_of(small)
    ids = sorted(row["image_id"] for row in rows)
    first = int(ids[0].removeprefix("ISIC_"))
    assert first >= 9_000_000
    assert first + len(rows) <= 10_000_000
    assert ids == [f"ISIC_{first + i}" for i in range(len(rows))]
    parts = [sorted(path.stem for path in (small / folder).iterdir()) for folder in IMAGES]
    assert parts[0] + parts[1] == ids
    assert abs(len(parts[0]) - len(parts[1])) <= 1
    assert sorted(path.name for path in (small / MASKS).iterdir()) == [f"{name}_segmentation.png" for name in ids]


def test_values_are_written_as_ham10000_writes_them(small: Path) -> None:
    rows = rows_of(small)
    assert {row["dx"] for row in rows} == set(CLASSES)
    assert {row["dx_type"] for row in rows} <= {"histo", "follow_up", "consensus", "confocal"}
    assert {row["sex"] for row in rows} <= {"male", "female", "unknown"}
    assert all(row["localization"] in synth_sites() for row in rows)
    ages = {row["age"] for row in rows}
    assert ages - {""} <= {f"{age}.0" for age in range(0, 90, 5)}
    assert all(row["dx_type"] == "histo" for row in rows if row["dx"] in ("mel", "bcc", "akiec"))


def synth_sites() -> set[str]:
    text = "back,lower extremity,trunk,upper extremity,abdomen,face,chest,foot,unknown,neck,scalp,hand,ear,genital,acral"
    return set(text.split(","))


def test_some_ages_sexes_and_sites_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "write_lesion", lambda recipe, plan: None)
    rows = rows_of(synthesize(tmp_path / "table", lesions=800, workers=1).root)
    for missing in (("age", ""), ("sex", "unknown"), ("localization", "unknown")):
        share = np.mean([row[missing[0]] == missing[1] for row in rows])
        assert 0.002 < share < 0.08, missing


def test_age_and_site_tell_the_class_only_weakly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "write_lesion", lambda recipe, plan: None)
    rows = rows_of(synthesize(tmp_path / "table", lesions=2800, balance="even", images_per_lesion=1, workers=1).root)
    known = [row for row in rows if row["age"]]
    labels = np.array([CLASSES.index(row["dx"]) for row in known])
    assert 0.02 < separation(np.array([[float(row["age"])] for row in known]), labels) < 0.15
    by_site: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        by_site[row["localization"]][row["dx"]] += 1
    right = sum(counts.most_common(1)[0][1] for counts in by_site.values()) / len(rows)
    assert 1 / 7 < right < 0.30


def test_images_of_a_lesion_share_its_class_and_patient(small: Path) -> None:
    lesions = defaultdict(list)
    for row in rows_of(small):
        lesions[row["lesion_id"]].append(row)
    assert len(lesions) == 84
    for images in lesions.values():
        for column in ("dx", "dx_type", "age", "sex", "localization"):
            assert len({row[column] for row in images}) == 1
    sizes = [len(images) for images in lesions.values()]
    assert min(sizes) == 1
    assert max(sizes) <= 4
    assert 1.7 < np.mean(sizes) < 2.3


def test_photographs_of_a_lesion_differ_but_less_than_those_of_two(small: Path) -> None:
    lesions = defaultdict(list)
    for row in rows_of(small):
        with Image.open(image_path(small, row["image_id"])) as image:
            lesions[row["lesion_id"]].append(np.asarray(image, dtype=np.float64).mean((0, 1)))
    means = [np.array(colours) for colours in lesions.values() if len(colours) > 1]
    within = np.mean([np.linalg.norm(m[0] - m[1]) for m in means])
    between = np.mean([np.linalg.norm(a[0] - b[0]) for a, b in pairwise(means)])
    assert 0 < within < 0.6 * between


# --- masks -----------------------------------------------------------------------------------------------------------


def test_masks_match_their_images_and_lie_on_the_lesion(small: Path) -> None:
    shares, contrasts = [], []
    for row in rows_of(small):
        with Image.open(image_path(small, row["image_id"])) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 48))
            pixels = np.asarray(image, dtype=np.float64).mean(-1)
        with Image.open(small / MASKS / f"{row['image_id']}_segmentation.png") as mask:
            assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (64, 48))
            values = np.asarray(mask)
        assert set(np.unique(values)) == {0, 255}
        inside = values == 255
        shares.append(inside.mean())
        contrasts.append(np.median(pixels[~inside]) - np.median(pixels[inside]))
    assert min(shares) > 0.005
    assert max(shares) < 0.97
    assert 0.08 < np.median(shares) < 0.35
    assert np.mean(np.array(contrasts) > 0) > 0.8


@pytest.mark.parametrize("size_px", [(32, 32), (32, 150), (96, 40), (33, 61)])
def test_any_shape_of_frame_is_filled(size_px: tuple[int, int]) -> None:
    canvas = canvas_for(size_px)
    blank = np.ones((canvas.edge_px, canvas.edge_px, 3), np.float32)
    everywhere = np.ones((canvas.edge_px, canvas.edge_px), np.bool_)
    calm = synth_session()
    for seed in range(20):
        image, mask = photograph(np.random.default_rng(seed), canvas, blank, everywhere, calm, size_px)
        assert image.size == mask.size == (size_px[1], size_px[0])
        assert np.asarray(mask).min() == 255, "the canvas ended inside the frame"


def synth_session() -> Any:
    from dermalyze.data.synthetic.photo import Session

    return Session(hairs=3, hair_colour=(0, 0, 0), ruler=True, tube=0.9, vignette=0.2, warmth=0, pink=0, exposure=1)


# --- balance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lesions", [7, 20, 35, 100, 400, 7470])
def test_shares_of_ham10000_with_a_least_number(lesions: int) -> None:
    counts = share_out(lesions, "ham10000")
    assert sum(counts.values()) == lesions
    assert min(counts.values()) >= min(5, lesions // 7)
    if lesions == 7470:
        assert counts == {"akiec": 228, "bcc": 327, "bkl": 727, "df": 73, "mel": 614, "nv": 5403, "vasc": 98}
    if lesions >= 100:
        assert counts["nv"] > lesions / 2


@pytest.mark.parametrize("lesions", [7, 10, 13, 84])
def test_even_classes_differ_by_one_at_most(lesions: int) -> None:
    counts = share_out(lesions, "even")
    assert sum(counts.values()) == lesions
    assert max(counts.values()) - min(counts.values()) <= 1


def test_result_counts_what_is_on_disk(tmp_path: Path) -> None:
    result = synthesize(tmp_path / "set", lesions=9, size_px=32, images_per_lesion=1.5, workers=1)
    rows = rows_of(result.root)
    assert result.images == len(rows) == sum(result.counts.values())
    assert result.lesions == len({row["lesion_id"] for row in rows}) == 9
    assert list(result.counts) == list(CLASSES)
    assert dict(Counter(row["dx"] for row in rows)) == result.counts


def test_images_per_lesion_bounds(tmp_path: Path) -> None:
    assert synthesize(tmp_path / "1", lesions=7, size_px=32, images_per_lesion=1, workers=1).images == 7
    assert synthesize(tmp_path / "4", lesions=7, size_px=32, images_per_lesion=4, workers=1).images == 28


# --- what tells the class, and what must not -------------------------------------------------------------------------


def lesion_and_corner(root: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """For the first image of each lesion: log color and spread inside over outside; corner color; class."""
    inner, corner, labels, seen = [], [], [], set()
    for row in rows_of(root):
        if row["lesion_id"] in seen:
            continue
        seen.add(row["lesion_id"])
        with Image.open(image_path(root, row["image_id"])) as image:
            pixels = np.asarray(image, dtype=np.float64) + 1
        with Image.open(root / MASKS / f"{row['image_id']}_segmentation.png") as mask:
            inside = np.asarray(mask) == 255
        colour = np.log(np.median(pixels[inside], 0) / np.median(pixels[~inside], 0))
        inner.append([*colour, np.log(pixels[inside]).std()])
        edge = 6
        corner.append(np.median([pixels[y, x] for y in (edge, -edge) for x in (edge, -edge)], axis=0))
        labels.append(CLASSES.index(row["dx"]))
    return np.array(inner), np.array(corner), np.array(labels)


def test_skin_light_and_instrument_do_not_tell_the_class(small: Path) -> None:
    inner, corner, labels = lesion_and_corner(small)
    rng = np.random.default_rng(0)
    chance = [separation(corner, rng.permutation(labels)) for _ in range(300)]
    assert separation(corner, labels) < np.quantile(chance, 0.99)
    assert separation(inner, labels) > 2 * np.quantile(chance, 0.99), "the same statistic sees the lesion"


def test_only_the_lesion_changes_with_the_class() -> None:
    size_px, seen = (64, 64), {}
    canvas = canvas_for(size_px)
    for dx in ("nv", "mel", "vasc"):
        skin = paint_skin(np.random.default_rng(1), canvas)
        paint_lesion(np.random.default_rng(2), skin, canvas, draw_look(np.random.default_rng(3), dx, 0.0), 0.15)
        session = draw_session(np.random.default_rng(4))
        mask = np.zeros((canvas.edge_px, canvas.edge_px), np.bool_)
        image, _ = photograph(np.random.default_rng(5), canvas, skin.colour(), mask, session, size_px)
        seen[dx] = np.asarray(image)
    for dx in ("mel", "vasc"):
        same = (seen[dx] == seen["nv"]).all(-1)
        assert same[:8].all()
        assert same[-8:].all()
        assert not same[24:40, 24:40].all()


def test_difficulty_takes_the_classes_apart_less(tmp_path: Path) -> None:
    found = []
    for difficulty in (0.0, 0.5, 1.0):
        out = tmp_path / str(difficulty)
        synthesize(out, lesions=63, seed=1, size_px=32, difficulty=difficulty, balance="even", images_per_lesion=1, workers=1)
        inner, _, labels = lesion_and_corner(out)
        found.append(separation(inner, labels))
    assert found[0] > found[1] > found[2]
    assert found[0] > 0.35
    assert found[2] < 0.15


def test_look_at_difficulty_0_is_of_its_class_alone() -> None:
    for dx in CLASSES:
        for seed in range(20):
            look = draw_look(np.random.default_rng(seed), dx, 0.0)
            shown = {name for name, amount in look.items() if amount != 0}
            assert shown <= set(LOOKS[dx])
            assert all(low <= look[name] <= high for name, (_, low, high) in LOOKS[dx].items() if name in shown)


def test_tables_name_the_same_things() -> None:
    assert set(LOOKS) == set(CLASSES)
    assert set(GROUPS["texture"]) | set(GROUPS["signs"]) == set(STRUCTURES)
    for look in LOOKS.values():
        assert set(look) <= set(NEUTRAL)


@pytest.mark.parametrize("name", sorted(STRUCTURES))
def test_every_structure_shows_inside_and_stays_near_the_lesion(name: str) -> None:
    canvas = Canvas(edge_px=180, unit_px=90.0)
    seen = []
    for amount in (0.0, 1.0):
        skin = paint_skin(np.random.default_rng(1), canvas)
        look = {**NEUTRAL, "melanin": 0.5, "blood": 0.3, name: amount}
        paint_lesion(np.random.default_rng(2), skin, canvas, look, 0.3)
        seen.append(skin.colour())
    change = np.abs(seen[1] - seen[0]).max(-1)
    x, y = canvas.axes()
    assert change.max() > 0.1
    assert change[np.hypot(x, y) > 0.75].max() < 1e-6
    assert np.isfinite(seen[1]).all()
    assert seen[1].min() >= 0
    assert seen[1].max() <= 1


# --- the painter's tools ---------------------------------------------------------------------------------------------


def test_noise_has_its_moments_and_its_wavelength() -> None:
    canvas = Canvas(edge_px=256, unit_px=128.0)
    slow, fast = (noise(np.random.default_rng(0), canvas, wavelength) for wavelength in (0.5, 0.1))
    for field in (slow, fast):
        assert field.dtype == np.float32
        assert abs(field.mean()) < 0.3
        assert 0.7 < field.std() < 1.3
    assert np.abs(np.diff(fast)).mean() > 2 * np.abs(np.diff(slow)).mean()


def test_dots_and_strokes_fall_where_they_are_put() -> None:
    canvas = Canvas(edge_px=100, unit_px=50.0)
    spot = dots(canvas, np.array([[0.5, -0.5]]), np.array([0.1]))
    assert spot[25, 75] == 1
    assert spot[75, 25] == 0
    assert np.isclose(spot.sum(), np.pi * 25, rtol=0.2)
    outside = dots(canvas, np.array([[5.0, 0.0], [0.0, -7.0]]), np.array([0.1, 0.1]))
    assert not outside.any()
    line = strokes(canvas, [(np.array([[-0.5, 0.5], [0.5, 0.5]]), 0.08)])
    assert line[75, 50] > 0.9
    assert line[25].max() == 0
    assert np.isclose(line.sum(), 50 * 4, rtol=0.3)


def test_rise_is_a_step_between_its_ends() -> None:
    field = np.array([-1.0, 0.0, 0.5, 1.0, 2.0], np.float32)
    np.testing.assert_allclose(rise(field, 0.0, 1.0), [0, 0, 0.5, 1, 1])


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"lesions": 6}, "lesions is 6"),
        ({"lesions": 200_001}, "lesions is 200001"),
        ({"lesions": 7.5}, "lesions is 7.5"),
        ({"seed": -1}, "seed is -1"),
        ({"difficulty": -0.1}, "difficulty is -0.1"),
        ({"difficulty": 1.01}, "difficulty is 1.01"),
        ({"difficulty": float("nan")}, "difficulty is nan"),
        ({"size_px": 31}, "size_px is 31"),
        ({"size_px": (64, 1025)}, "size_px is 1025"),
        ({"size_px": (64,)}, "size_px is (64,)"),
        ({"balance": "uneven"}, "balance is 'uneven'"),
        ({"images_per_lesion": 0.9}, "images_per_lesion is 0.9"),
        ({"images_per_lesion": 4.1}, "images_per_lesion is 4.1"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_bad_values_are_refused_in_one_line_and_leave_nothing(tmp_path: Path, wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        synthesize(tmp_path / "deep" / "set", **{"lesions": 7, "size_px": 32, "workers": 1, **wrong})
    assert named in str(caught.value)
    assert "allowed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_place_is_refused_and_not_touched(tmp_path: Path) -> None:
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "mine.txt").write_text("keep")
    file.write_text("keep")
    before = fingerprint(tmp_path)
    for out in (full, file, file / "below"):
        with pytest.raises(UsageError, match="allowed is a new or empty"):
            synthesize(out, lesions=7, size_px=32, workers=1)
    assert fingerprint(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "empty"
    out.mkdir()
    assert synthesize(out, lesions=7, size_px=32, workers=1).images == len(rows_of(out))
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = synth.write_lesion, []

    def write(recipe: synth.Recipe, plan: Any) -> None:
        calls.append(plan)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(recipe, plan)

    monkeypatch.setattr(synth, "write_lesion", write)
    with pytest.raises(ResourceError, match="free space"):
        synthesize(tmp_path / "set", lesions=7, size_px=32, workers=1)
    assert len(calls) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_script_without_a_main_guard_is_told_what_to_do(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from pathlib import Path\nfrom dermalyze.data.synthetic.synth import synthesize\n"
        "synthesize(Path('set'), lesions=7, size_px=32, workers=2)\n"
    )
    source = str(Path(synth.__file__).parents[2])
    run = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, env={"PYTHONPATH": source}, capture_output=True, text=True, timeout=120
    )
    assert run.returncode != 0
    assert "workers=1" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["unguarded.py"]


# --- contact sheet ---------------------------------------------------------------------------------------------------


def test_contact_sheet_shows_a_labelled_row_for_each_class(small: Path) -> None:
    sheet = contact_sheet(small, columns=3, rows_per_class=2)
    assert sheet.mode == "RGB"
    assert sheet.size == (64 + 3 * 200, 7 * 2 * 150)
    pixels = np.asarray(sheet)
    for row in range(14):
        for column in range(3):
            tile = pixels[row * 150 : row * 150 + 48, 64 + column * 200 : 64 + column * 200 + 64]
            assert tile.std() > 1, "a tile is empty"
    for line in range(7):
        assert pixels[line * 300 : (line + 1) * 300, :64].min() < 100, "a label is missing"


def test_contact_sheet_refuses_what_it_cannot_show(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not there"):
        contact_sheet(tmp_path)
    table = tmp_path / "HAM10000_metadata.csv"
    table.write_text("image_id,label\na,mel\n")
    with pytest.raises(DataError, match="column dx, lesion_id is missing"):
        contact_sheet(tmp_path)
    table.write_text("lesion_id,image_id,dx\nL1,a,mel\n")
    with pytest.raises(DataError, match="image a is in none of"):
        contact_sheet(tmp_path)
    (tmp_path / IMAGES[1]).mkdir()
    (tmp_path / IMAGES[1] / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.jpg: no readable JPEG"):
        contact_sheet(tmp_path)
