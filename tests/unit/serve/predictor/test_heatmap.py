"""Class-activation maps over images: the right place, honest colors, no numbers out of nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mapped import CAM_RECORD, GRADES, MAP, graded, mapped_graph
from PIL import Image

from dermalyze.artifact.record import sealed
from dermalyze.errors import ModelError, ResourceError, UsageError
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.serve.predictor.answers import predict
from dermalyze.serve.predictor.heatmap import heat, heat_png, overlay_png, spread, strength, viridis_colors
from dermalyze.serve.predictor.output import write
from dermalyze.serve.predictor.predictor import Predictor

HALF = (0.5, 0.5, 0.5)


def preprocessing(kind: Any, height: int = 32, width: int = 32, crop: float = 0.8) -> Preprocessing:
    return Preprocessing(kind, height, width, crop, HALF, HALF)


def brightest(image: Image.Image) -> tuple[int, int]:
    alpha = np.asarray(image)[..., 3].astype(int)
    y, x = np.unravel_index(alpha.argmax(), alpha.shape)
    return int(y), int(x)


@pytest.mark.parametrize("kind", ["squash", "pad", "resize_crop"])
@pytest.mark.parametrize("size", [(200, 100), (100, 200), (64, 64)])
def test_the_spot_lies_where_the_network_saw_it(kind: Any, size: tuple[int, int]) -> None:
    """A white spot in the image, brought to the network's size, is the map: laid back, it covers the spot."""
    from dermalyze.imaging.preprocess import to_size

    width, height = size
    p = preprocessing(kind)
    pixels = np.zeros((height, width, 3), np.uint8)
    y, x = round(0.35 * height), round(0.6 * width)
    pixels[y - 6 : y + 7, x - 6 : x + 7] = 255
    seen = to_size(pixels, p)[..., 0].astype(np.float32)
    found = brightest(heat(seen, size, p))
    assert abs(found[0] - y) <= 8
    assert abs(found[1] - x) <= 8


def test_a_crop_says_nothing_of_what_it_left_out() -> None:
    p = preprocessing("resize_crop", crop=0.5)
    whole = spread(np.ones((4, 4), np.float32), (100, 100), p)
    assert np.isnan(whole[:20]).all()
    assert np.isnan(whole[:, 80:]).all()
    assert (whole[30:70, 30:70] == 1).all()
    assert (np.asarray(heat(np.ones((4, 4), np.float32), (100, 100), p))[:20, :, 3] == 0).all()


def test_maps_without_support_are_empty_not_divided_by_zero() -> None:
    for cam in (np.zeros((3, 3)), -np.ones((3, 3)), np.full((3, 3), -1e-38)):
        made = heat(cam.astype(np.float32), (20, 20), preprocessing("squash"))
        assert (np.asarray(made)[..., 3] == 0).all()
    assert strength(np.array([[2.0, -1.0]], np.float32)).tolist() == [[1.0, 0.0]]


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB 0..255; IEC 61966-2-1 and CIE 15."""
    linear = rgb / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = xyz / np.array([0.95047, 1.0, 1.08883])
    f = np.where(f > (6 / 29) ** 3, np.cbrt(f), f / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def test_lightness_rises_evenly_also_for_colour_blind_readers() -> None:
    """Equal steps of value are nearly equal steps of lightness; protan and deutan readers keep order and distances.

    Simulation: Machado, Oliveira & Fernandes 2009, doi:10.1109/TVCG.2009.113, severity 1.
    """
    rgb = viridis_colors(np.linspace(0, 1, 33)).astype(np.float64)
    steps = np.diff(lab(rgb)[:, 0])
    assert steps.min() > 0
    assert steps.max() < 2 * steps.mean()
    matrices = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    }
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    for matrix in matrices.values():
        seen = (linear @ np.array(matrix).T).clip(0, 1)
        encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        assert np.diff(lab(255 * encoded)[:, 0]).min() > 0


def test_png_has_no_metadata_and_is_small() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 3000, 3), dtype=np.uint8))
    cam = np.eye(5, dtype=np.float32)
    p = preprocessing("squash")
    made_pngs = ((overlay_png(picture, cam, p), "RGB"), (heat_png(cam, picture.size, p), "RGBA"))
    for data, mode in made_pngs:
        with Image.open(io.BytesIO(data)) as made:
            assert (made.format, made.mode, made.size) == ("PNG", mode, (1024, 512))
            assert not made.info
    with pytest.raises(UsageError, match="opacity"):
        heat(cam, (5, 5), preprocessing("squash"), opacity=2)


@pytest.fixture
def folder(make_artifact: Any) -> Path:
    return make_artifact(graph=mapped_graph(), cam=CAM_RECORD, recipe="flips")


def test_predict_explains_the_plain_view(folder: Path) -> None:
    predictor = Predictor(folder, threads=1)
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[:8, :8] = (255, 30, 60)
    with_map, without = predictor.predict(pixels, explain=True, scores=True), predictor.predict(pixels, scores=True)
    assert with_map == without.__class__(
        **{**without.__dict__, "cam_class": with_map.predicted_class, "cam_grade": predictor.artifact.cam_grade}
    )
    assert with_map.cam is not None
    assert with_map.cam.shape == MAP
    assert np.abs(with_map.cam).argmax() == 0, "the color is in the first cell, whatever mirror images the recipe asks"
    assert (without.cam, without.image, without.cam_class, without.cam_grade) == (None, None, None, None)
    assert "heatmap" not in without.as_dict()
    assert with_map.image is not None
    assert with_map.image.size == (32, 24)
    assert "cam" not in with_map.as_dict()
    named = predictor.predict(pixels, explain="vasc", scores=True)
    assert named.cam_class == "vasc"
    with pytest.raises(UsageError, match="did you mean 'vasc'"):
        predictor.predict(pixels, explain="vascc", scores=True)


def test_explained_answers_are_the_answers(folder: Path) -> None:
    predictor = Predictor(folder, threads=1)
    images = [np.random.default_rng(i).integers(0, 256, (20, 20, 3), dtype=np.uint8) for i in range(5)]
    plain = [answer.probabilities for answer in predictor.predict_batch(images, 2, scores=True)]
    explained = [answer.probabilities for answer in predictor.predict_batch(images, 2, explain=True, scores=True)]
    for ours, theirs in zip(plain, explained, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_a_rotated_file_has_its_map_upright(folder: Path) -> None:
    predictor = Predictor(folder, threads=1)
    pixels = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    upright = predictor.predict(pixels, explain=True, scores=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.rot90(pixels)).save(buffer, "PNG", exif=exif)
    turned = predictor.predict(buffer.getvalue(), explain=True, scores=True)
    assert turned.cam is not None
    assert turned.image is not None
    assert turned.image.size == (32, 24)
    np.testing.assert_allclose(turned.cam, upright.cam, atol=1e-6)


def test_the_folder_of_overlays(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "DOE_JOHN.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = list(
        predict(folder, [tmp_path / "DOE_JOHN.png", tmp_path / "broken.png"], explain=tmp_path / "out" / "maps", scores=True)
    )
    assert rows[1].error
    [made] = (tmp_path / "out" / "maps").iterdir()
    assert made.name == f"00000-{rows[0].sha256[:12]}.png", "no name of a file, which may be a person's"
    with Image.open(made) as sheet:
        assert sheet.height > 40, "caption and disclaimer stand below"
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        list(predict(folder, [tmp_path / "DOE_JOHN.png"], explain=tmp_path / "file", scores=True))


@pytest.mark.parametrize("verdict", GRADES)
def test_every_map_comes_with_the_grade_of_its_model(folder: Path, tmp_path: Path, verdict: str) -> None:
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[:8, :8] = (255, 30, 60)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    before = Predictor(folder, threads=1).predict(pixels, explain=True, scores=True)
    assert before.cam_grade is not None
    assert (before.cam_grade.verdict, before.cam_grade.groups) == ("not graded", 0)
    record = folder / "artifact.json"
    record.write_bytes(sealed(graded(json.loads(record.read_text()), verdict)))
    after = Predictor(folder, threads=1).predict(pixels, explain=True, scores=True)
    assert after.probabilities == before.probabilities
    assert after.as_dict()["heatmap"] == {"class": after.predicted_class, "grade": GRADES[verdict]}
    json.dumps(after.as_dict(), allow_nan=False)
    table, lines = io.StringIO(), io.StringIO()
    for stream, format in ((table, "table"), (lines, "jsonl")):
        rows = predict(folder, [tmp_path / "a.png"], explain=tmp_path / verdict, scores=True)
        write(rows, stream, classes=rows.classes, format=format)  # type: ignore[arg-type]
    words, lesions = str(GRADES[verdict]["words"]), GRADES[verdict]["groups"]
    assert f"Heat maps of this model: {words} ({lesions} test groups)\n" in table.getvalue()
    assert json.loads(lines.getvalue())["heatmap"]["grade"]["verdict"] == verdict


def test_the_grade_stands_under_the_drawn_picture(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dermalyze.serve.predictor import heatmap

    captions: list[str] = []
    monkeypatch.setattr(heatmap, "overlay_png", lambda *_, caption, **__: captions.append(caption) or b"")
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "a.png")
    record = folder / "artifact.json"
    record.write_bytes(sealed(graded(json.loads(record.read_text()), "no better")))
    list(predict(folder, [tmp_path / "a.png"], explain=tmp_path / "maps", scores=True))
    assert captions[0].endswith("Heat maps of this model: no better than a centered blob for this model.")


def test_a_grade_of_another_model_is_refused(folder: Path) -> None:
    record = folder / "artifact.json"
    values = graded(json.loads(record.read_text()), "better")
    for stale in ({"recipe": "plain"}, {"graded_scores_sha256": None}, {"cam": {**CAM_RECORD, "reason": "another"}}):
        record.write_bytes(sealed({**values, **stale}))
        with pytest.raises(ModelError, match="the grade of its maps is of another model; explain the run again"):
            Predictor(folder, threads=1)
    for bad in ({"verdict": "good"}, {"groups": -1}, {"words": ""}, {"level": 2}, {"extra": 1}, {"over": {"best": None}}):
        record.write_bytes(sealed({**values, "cam_grade": {**GRADES["better"], **bad}}))
        with pytest.raises(ModelError, match=r"artifact\.json: cam_grade"):
            Predictor(folder, threads=1)


def test_a_model_without_a_map_refuses_before_the_first_image(make_artifact: Any, tmp_path: Path) -> None:
    folder = make_artifact(
        "without", cam={"kind": "none", "reason": "the head takes the map, not its mean", "height": 0, "width": 0}
    )
    with pytest.raises(ModelError, match="takes the map, not its mean"):
        predict(folder, ["no-such.jpg"], explain=tmp_path / "maps", scores=True)
    assert not (tmp_path / "maps").exists()
    assert not Predictor(folder, threads=1).explains
