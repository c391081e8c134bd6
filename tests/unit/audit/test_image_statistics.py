"""Looks of a set: shares by class, and giveaways that are planted are found while a clean set has none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from dermalyze.audit.image_statistics import MEASURES, SHOWN, TONE, artifact_galleries, audit_statistics, measure_images
from dermalyze.config.data import DataSpec
from dermalyze.data.store import ImageStore
from dermalyze.data.thumbnails import GalleryImage
from dermalyze.imaging.modalities import MODALITIES
from dermalyze.imaging.photo_artifacts import ARTIFACTS

N = 120
WORDS = MODALITIES["dermoscopy"].words


def paint(rng):
    """Skin of a random color with a lesion; nothing in it depends on a class."""
    colour = rng.normal((220, 170, 160), 12)
    image = Image.fromarray(np.clip(colour + rng.normal(0, 3, (75, 100, 3)), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse([(35, 25), (65, 50)], fill=(120, 70, 50))
    return image, draw


def make(folder, change=lambda image, draw, row, rng: {}):
    """A set of three classes, two images a lesion; `change` alters an image and may say how it is saved."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "image_id": [f"i{k:03}" for k in range(N)],
            "path": [f"i{k:03}.jpg" for k in range(N)],
            "label": [("mel", "nv", "bkl")[k // 2 % 3] for k in range(N)],
            "source": [("graz", "rome")[k // 6 % 2] for k in range(N)],
            "group": [f"L{k // 2}" for k in range(N)],
        }
    )
    folder.mkdir(exist_ok=True)
    for row in frame.itertuples():
        image, draw = paint(rng)
        image.save(folder / row.path, **{"quality": 90, **change(image, draw, row, rng)})
    return frame, ImageStore.open(DataSpec(path=str(folder)))


def audited(folder, *change):
    frame, store = make(folder, *change)
    looks = measure_images(store, frame, workers=0)
    return frame, looks, *audit_statistics(frame, looks, WORDS)


def kinds(findings):
    return {finding.kind for finding in findings if finding.severity == "warn"}


def test_a_clean_set_has_no_warning(tmp_path):
    _, looks, findings, tables = audited(tmp_path / "clean")
    assert kinds(findings) == set()
    assert list(looks.frame) == [*MEASURES, *ARTIFACTS, *TONE]
    assert set(looks.frame["jpeg_quality"]) == {90.0}
    areas = [row[2] for row in tables["looks"]["rows"]]
    assert max(areas) < 0.75
    assert {row[1] for row in tables["looks"]["rows"]} == {"class", "source"}


def ink_on_mel(image, draw, row, rng):
    if row.label == "mel" or rng.random() < 0.05:
        draw.line([(3, 8 + 55 * int(rng.integers(2))), (25, 12)], fill=(70, 40, 150), width=5)
    return {}


def test_an_artifact_of_one_class_is_found_and_counted(tmp_path):
    frame, looks, findings, tables = audited(tmp_path / "ink", ink_on_mel)
    found = [f for f in findings if f.kind == "artifact_by_class" and f.examples == ("ink",)]
    assert len(found) == 1
    assert "ink: in 100 % of the images of 'mel'" in found[0].detail
    ink = tables["artifacts"]["columns"].index("ink")
    share = {row[0]: row[ink] for row in tables["artifacts"]["rows"]}
    assert share["mel"] == 100.0
    assert share["all"] == pytest.approx(100 * np.mean(looks.artifact("ink") == "yes"), abs=0.06)
    assert share["nv"] < 20
    (gallery,) = [g for g in artifact_galleries(frame, looks) if g.kind == "artifact_ink"]
    pictures = gallery.rows[0]
    assert len(pictures) == SHOWN
    assert all(isinstance(picture, GalleryImage) for picture in pictures)
    values = [looks.frame["ink"][frame["image_id"] == picture.image_id].item() for picture in pictures]
    assert values == sorted(values, reverse=True)
    assert values[-1] >= ARTIFACTS["ink"].threshold


def patch_on_nv(image, draw, row, rng):
    if row.label == "nv":
        draw.rectangle([(88, 2), (97, 9)], fill=(120, 160, 140))
    return {}


def cast_on_nv(image, draw, row, rng):
    if row.label == "nv":
        image.paste(Image.eval(image, lambda v: round(0.6 * v)))
    return {}


def coarse_jpeg_on_bkl(image, draw, row, rng):
    return {"quality": 70} if row.label == "bkl" else {}


@pytest.mark.parametrize(
    ("change", "name", "label"),
    [(patch_on_nv, "the rim alone", "nv"), (cast_on_nv, "brightness", "nv"), (coarse_jpeg_on_bkl, "jpeg quality", "bkl")],
    ids=["patch", "cast", "jpeg"],
)
def test_shortcuts_are_found(change, name, label, tmp_path):
    *_, findings, tables = audited(tmp_path / "set", change)
    named = [f for f in findings if f.kind == "telling_looks" and f.examples == (name,)]
    assert len(named) == 1
    assert f"for '{label}' against the rest" in named[0].detail
    area = next(row[2] for row in tables["looks"]["rows"] if row[:2] == [name, "class"])
    assert area > 0.95


def darker_in_rome(image, draw, row, rng):
    if row.source == "rome":
        image.paste(Image.eval(image, lambda v: round(0.6 * v)))
    return {}


def test_looks_that_tell_the_source(tmp_path):
    *_, findings, _ = audited(tmp_path / "set", darker_in_rome)
    assert kinds(findings) == {"telling_source"}
    assert "predict the source: AUROC 1.00" in next(f.detail for f in findings if f.kind == "telling_source")


def test_pictures_that_are_gone_are_said_and_left_out(tmp_path):
    frame, store = make(tmp_path / "set")
    (tmp_path / "set" / "i000.jpg").unlink()
    (tmp_path / "set" / "i001.jpg").write_bytes(b"")
    looks = measure_images(store, frame, workers=0)
    findings, tables = audit_statistics(frame, looks, WORDS)
    assert [f.count for f in findings if f.kind == "unreadable"] == [2]
    assert tables["artifacts"]["rows"][0][1] == N - 2
    findings, tables = audit_statistics(frame[:2], measure_images(store, frame[:2], workers=0), WORDS)
    assert ([f.kind for f in findings], tables) == (["unreadable"], {})


def test_processes_and_order_change_nothing(tmp_path):
    frame, store = make(tmp_path / "set", ink_on_mel)
    alone = measure_images(store, frame, workers=0)
    pooled = measure_images(store, frame, workers=2)
    pd.testing.assert_frame_equal(alone.frame, pooled.frame)
    assert np.array_equal(alone.rim, pooled.rim)
    assert audit_statistics(frame, alone, WORDS) == audit_statistics(frame, pooled, WORDS)


def test_other_formats_and_tiny_pictures(tmp_path):
    for k in range(4):
        Image.fromarray(np.full((28, 28, 3), 60 * k, np.uint8)).save(tmp_path / f"{k}.png")
    frame = pd.DataFrame({"image_id": list("0123"), "path": [f"{k}.png" for k in range(4)], "label": list("abab")})
    frame = frame.assign(source=None, group=frame["image_id"])
    looks = measure_images(ImageStore.open(DataSpec(path=str(tmp_path))), frame, workers=0)
    findings, tables = audit_statistics(frame, looks, WORDS)
    assert findings == []
    assert tables["artifacts"]["rows"][0] == ["all", 4, *[None] * len(ARTIFACTS)]
    assert looks.frame["jpeg_quality"].isna().all()
    assert artifact_galleries(frame, looks) == []
