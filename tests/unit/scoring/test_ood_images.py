"""Images that are no skin: made, and read from folders and MedMNIST files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dermalyze.errors import DataError
from dermalyze.imaging.decode import Preprocessing
from dermalyze.scoring import ood_images
from dermalyze.scoring.ood_images import EACH, SYNTHETIC, name_of, read_ood_images, synthetic

PREPROCESSING = Preprocessing(kind="squash", height=30, width=40, mean=(0.5,) * 3, std=(0.5,) * 3, crop_ratio=1.0)


def test_synthetic_pictures_are_the_same_each_time_and_differ_among_themselves():
    one, again = (list(synthetic(PREPROCESSING, seed=1)) for _ in range(2))
    assert [p.kind for p in one] == [kind for kind in SYNTHETIC for _ in range(EACH)]
    assert len({p.image_id for p in one}) == len(one)
    assert all(p.pixels.shape == (30, 40, 3) and p.pixels.dtype == np.uint8 for p in one)
    assert all((a.pixels == b.pixels).all() for a, b in zip(one, again, strict=True))
    assert len({p.pixels.tobytes() for p in one}) == len(one)
    other = list(synthetic(PREPROCESSING, seed=2))
    assert sum((a.pixels != b.pixels).any() for a, b in zip(one, other, strict=True)) >= len(one) - 2  # black and white stay


def test_the_first_blanks_are_black_and_white_and_all_are_of_one_colour():
    blanks = [p.pixels for p in synthetic(PREPROCESSING, seed=1) if p.kind == "blank"]
    assert blanks[0].max() == 0
    assert blanks[1].min() == 255
    assert all((pixels == pixels[0, 0]).all() for pixels in blanks)


def test_textures_have_texture():
    for p in synthetic(PREPROCESSING, seed=1):
        if p.kind != "blank":
            assert p.pixels.std() > 1, p.image_id


def test_a_folder_leaves_out_what_cannot_be_read_and_says_so(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (60, 50), (9, 9, 9)).save(tmp_path / "in" / "a.png")
    Image.new("L", (60, 50)).save(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_bytes(b"no image")
    (tmp_path / "d.png").symlink_to(tmp_path / "b.jpg")
    found = list(read_ood_images(tmp_path, PREPROCESSING, seed=0))
    assert len(found) == 2
    assert {p.kind for p in found} == {name_of(tmp_path)}
    assert "1 of 3 files are left out" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(7, 28, 28), (7, 28, 28, 3)])
def test_medmnist_files_are_read(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "chest mnist.npz", test_images=images, test_labels=np.zeros((7, 1)), train_images=images[:2])
    found = list(read_ood_images(tmp_path / "chest mnist.npz", PREPROCESSING, seed=0))
    assert [p.image_id for p in found] == [f"chest_mnist/{i}" for i in range(7)]
    assert found[0].pixels.shape == (30, 40, 3)


def test_more_than_the_most_is_a_seeded_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(ood_images, "MOST", 5)
    np.savez(tmp_path / "a.npz", test_images=np.arange(40, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2))

    def levels(seed):
        return [int(p.pixels[0, 0, 0]) for p in read_ood_images(tmp_path / "a.npz", PREPROCESSING, seed=seed)]

    assert len(set(levels(1))) == 5
    assert levels(1) == levels(1) != levels(2)


def test_what_is_no_set_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no")
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    np.savez(tmp_path / "float.npz", test_images=np.zeros((2, 8, 8)))
    (tmp_path / "list.csv").write_text("a")
    for name, why in [("empty", "no image"), ("bad.npz", "not a readable"), ("other.npz", "has no array"),
                      ("float.npz", "must be uint8"), ("list.csv", "neither"), ("gone", "neither")]:  # fmt: skip
        with pytest.raises(DataError, match=why):
            list(read_ood_images(tmp_path / name, PREPROCESSING, seed=0))


def test_an_npz_of_python_objects_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "evil.npz", test_images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="not a readable npz"):
        list(read_ood_images(tmp_path / "evil.npz", PREPROCESSING, seed=0))
