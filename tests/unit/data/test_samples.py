"""Samples of two images: groups, leaks and conflicts over both; maps, streams and batches give the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dermalyze.config.data import DataSpec
from dermalyze.config.model import ModelSpec
from dermalyze.config.train import TrainSpec
from dermalyze.core.atomic import sha256_bytes
from dermalyze.data.cache import UnusableImageError
from dermalyze.data.grouping import conflicts, groups, leaks
from dermalyze.data.loader import MappedLoader, StreamLoader, open_loader
from dermalyze.data.pixels import open_maps, read_batches
from dermalyze.data.samples import Samples, one_row_per_image, read_block, read_sample, require_images
from dermalyze.data.store import ImageStore
from dermalyze.imaging.decode import Preprocessing
from dermalyze.imaging.image import Decoded
from dermalyze.imaging.modalities import MODALITIES
from dermalyze.imaging.samples import complete, concatenate, network_inputs, sample_of, stack, take, with_images

PREPROCESSING = Preprocessing("squash", 8, 10, 1.0, (0.5,) * 3, (0.5,) * 3)


def rows(*content: tuple[str, str | None], labels: str | None = None) -> pd.DataFrame:
    """Cases a, b, c ... by the content of their images."""
    ids = [chr(ord("a") + i) for i in range(len(content))]
    first, second = ([pair[k] for pair in content] for k in (0, 1))
    beside = [None if two is None else f"{i}2.png" for i, two in zip(ids, second, strict=True)]
    return pd.DataFrame(
        {
            "image_id": ids, "label": list(labels or "x" * len(ids)), "path": [f"{i}.png" for i in ids], "sha256": first,
            "pixel_sha256": first, "image_2_path": beside,
            "image_2_sha256": second, "image_2_pixel_sha256": second,
        }
    )  # fmt: skip


def test_a_shared_image_joins_in_either_place() -> None:
    frame = rows(("1", "2"), ("2", None), ("3", "4"), ("5", "4"), ("6", None), ("7", None))
    assert groups(frame).tolist() == ["a", "a", "c", "c", "e", "f"]


@given(st.lists(st.tuples(st.sampled_from("12345678"), st.sampled_from("12345678") | st.none()), min_size=2, max_size=9))
def test_cases_without_a_common_image_share_no_group_but_through_others(content: list[tuple[str, str | None]]) -> None:
    """The groups are the connected components of a naive search."""
    frame = rows(*content)
    sets = [{one for one in pair if one is not None} for pair in content]
    found = list(range(len(sets)))
    for _ in sets:
        for i, a in enumerate(sets):
            for j, b in enumerate(sets):
                if a & b:
                    found[i] = found[j] = min(found[i], found[j])
    assert groups(frame).tolist() == [chr(ord("a") + i) for i in found]


def test_leaks_name_what_crosses() -> None:
    frame = rows(("1", "2"), ("2", "3"), ("4", None))
    frame["group"] = groups(frame)
    (leak,) = leaks(frame, pd.Series(["train", "test", "train"]))
    assert leak["image_ids"] == ["a", "b"]
    assert leak["joined_by"] == ["sha256", "pixel_sha256"]
    assert leaks(frame, pd.Series(["train", "train", "test"])) == []


def test_conflicts_need_a_first_image() -> None:
    assert conflicts(rows(("1", "9"), ("2", "9"), labels="xy")) == []
    assert conflicts(rows(("1", "2"), ("2", None), ("3", None), labels="xyx")) == [["a", "b"]]
    assert conflicts(rows(("1", "2"), ("2", None), labels="xx")) == []
    assert conflicts(rows(("1", "1"), ("2", None), labels="xy")) == []  # its own image twice


def test_what_is_not_used_or_never_met_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    whole, some, none = rows(("1", "2")), rows(("1", "2"), ("3", None)), rows(("1", None))
    for frame, second, said in (
        (whole, None, "only the first image of 1 samples that have two"),
        (whole, {"kind": "shared", "hide": 0}, "a prediction without one is unreliable"),
        (whole, {"kind": "shared"}, ""),
        (some, {"kind": "shared", "hide": 0}, ""),
        (none, None, ""),
    ):
        require_images(frame, ModelSpec.model_validate({"head": {"kind": "linear"}, "image_2": second}))
        heard = capsys.readouterr().err
        assert said in heard
        assert bool(said) == bool(heard)


def test_one_row_a_image() -> None:
    frame = one_row_per_image(rows(("1", "2"), ("3", None)))
    assert frame[["image_id", "path", "pixel_sha256"]].to_numpy().tolist() == [
        ["a", "a.png", "1"], ["a", "a2.png", "2"], ["b", "b.png", "3"],
    ]  # fmt: skip


@pytest.fixture
def stored(tmp_path: Path) -> tuple[ImageStore, pd.DataFrame]:
    rng = np.random.default_rng(0)
    for name in ("a", "a2", "b", "c", "c2"):
        Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    sha = {path.stem: sha256_bytes(path.read_bytes()) for path in tmp_path.iterdir()}
    return ImageStore((("", tmp_path),)), rows((sha["a"], sha["a2"]), (sha["b"], None), (sha["c"], sha["c2"]))


def samples_of(store: ImageStore, frame: pd.DataFrame, preprocessing: Preprocessing = PREPROCESSING) -> Samples:
    inputs = network_inputs(preprocessing.image, optional=["image_2"], metadata=3)
    metadata_NM = np.arange(3 * len(frame), dtype=np.float32).reshape(-1, 3)
    return Samples.of(store, frame, preprocessing, inputs, metadata_NM)


def test_mapped_streamed_and_batched_samples_are_the_same(stored: tuple[ImageStore, pd.DataFrame]) -> None:
    samples = samples_of(*stored)
    order = [np.array([2, 1]), np.array([0, 2])]
    (whole,) = read_batches(samples, size=8, workers=1)
    assert list(whole) == ["image", "image_2", "present", "metadata"]
    assert whole["present"].tolist() == [[True], [False], [True]]
    assert whole["image_2"][1].max() == 0
    assert whole["image_2"][0].max() > 0
    mapped = MappedLoader(samples, open_maps(samples, workers=1)).batches(order)
    streamed = StreamLoader(samples, workers=0).batches(order)
    several = concatenate(read_batches(samples, size=2, workers=1))
    for name, values in whole.items():
        np.testing.assert_array_equal(several[name], values)
    for rows_B, one, other in zip(order, mapped, streamed, strict=True):
        for name, values in take(whole, rows_B).items():
            np.testing.assert_array_equal(one[name].numpy(), values)
            np.testing.assert_array_equal(other[name].numpy(), values)


def test_a_second_image_that_changed_is_refused(stored: tuple[ImageStore, pd.DataFrame], tmp_path: Path) -> None:
    samples = samples_of(*stored)
    (tmp_path / "c2.png").write_bytes((tmp_path / "a2.png").read_bytes())
    jobs = [samples.job(row) for row in range(3)]
    images, bad = read_block(samples.store, jobs, samples.image_inputs, PREPROCESSING)
    assert bad == {2: "image_2: its bytes changed since prepare"}
    assert images["image"][2].max() == images["image_2"][2].max() == 0
    with pytest.raises(UnusableImageError, match="image_2: its bytes changed"):
        read_sample(samples.store, jobs[2], samples.image_inputs, PREPROCESSING)


def slices_of_16_bits(data: bytes, **_: Any) -> Decoded:
    """Five slices of 16 bits in a raw file of 6 x 4 pixels."""
    pixels = np.frombuffer(data, "<u2").reshape(6, 4, 5)
    return Decoded(image=pixels, mode="I;16", format="RAW", notes=(), personal=())  # type: ignore[arg-type]


@pytest.mark.parametrize("cache", ["memory_map", "stream"])
def test_sixteen_bits_and_any_number_of_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    """A modality of five slices of 16 bits goes through cache and loader by its row alone."""
    row = dataclasses.replace(
        MODALITIES["dermoscopy"], name="slices", channels=5, dtype="uint16", decode=slices_of_16_bits
    )  # fmt: skip
    monkeypatch.setitem(MODALITIES, "slices", row)
    monkeypatch.setenv("DERMALYZE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    volumes = np.random.default_rng(0).integers(0, 65536, (4, 6, 4, 5), dtype=np.uint16)
    for name, volume in zip("abcd", volumes, strict=True):
        (tmp_path / "data" / f"{name}.png").write_bytes(volume.tobytes())
    hashes = [sha256_bytes(volume.tobytes()) for volume in volumes]
    frame = pd.DataFrame({"image_id": list("abcd"), "path": [f"{name}.png" for name in "abcd"], "sha256": hashes})
    p = Preprocessing("squash", 12, 8, 1.0, (0.5,) * 5, (0.25,) * 5, dtype="uint16", modality="slices")
    samples = Samples.of(ImageStore((("", tmp_path / "data"),)), frame, p, (p.image,))
    loader = open_loader(DataSpec(workers=1), TrainSpec(cache=cache, num_workers=0), samples)
    (batch,) = loader.batches([np.array([3, 0])])
    assert batch["image"].shape == (2, 12, 8, 5)
    assert str(batch["image"].dtype) == "torch.uint16"
    assert int(batch["image"].numpy().max()) > 255, "sixteen bits are kept"
    assert isinstance(loader, MappedLoader) == (cache == "memory_map")
    same = dataclasses.replace(p, height=6, width=4)
    (kept,) = read_batches(dataclasses.replace(samples, preprocessing=same, inputs=(same.image,)), size=4, workers=1)
    np.testing.assert_array_equal(kept["image"], volumes)


def test_batches_by_name() -> None:
    image = PREPROCESSING.image
    inputs = network_inputs(image, optional=["image_2"], metadata=2)
    one, two = (np.full(image.shape, value, np.uint8) for value in (1, 2))
    batch = stack([sample_of({"image": one, "image_2": two}, inputs), sample_of({"image": one}, inputs)])
    assert batch["present"].tolist() == [[True], [False]]
    assert batch["image_2"].max(axis=(1, 2, 3)).tolist() == [2, 0]
    whole = complete(batch, inputs, np.array([7.0, 8.0], np.float32))
    assert whole["metadata"].tolist() == [[7, 8], [7, 8]]
    assert complete({"image": batch["image"], "image_2": batch["image_2"]}, inputs)["present"].all()
    doubled = with_images(whole, lambda images: images * 2)
    assert int(doubled["image_2"].max()) == 4
    assert doubled["metadata"] is whole["metadata"]
