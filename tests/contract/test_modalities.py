"""Every row of `MODALITIES`: it decodes what it promises, has words, limits that can be checked and a policy that exists."""

from __future__ import annotations

import io
from dataclasses import fields
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.data import DataSpec, ModalityName
from dermalyze.config.train import AugmentSpec
from dermalyze.imaging.image import Decoded, ImageError
from dermalyze.imaging.modalities import MODALITIES, Modality, Words, modality, modality_of
from dermalyze.imaging.quality import MEASURES, appraise
from dermalyze.training.augment import POLICIES, resolve

EVERY = pytest.mark.parametrize("name", MODALITIES)


def file(kind: str) -> bytes:
    """A small image that is wider than high."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_the_table_and_the_configuration_name_the_same() -> None:
    assert set(MODALITIES) == set(get_args(ModalityName))
    assert all(name == row.name for name, row in MODALITIES.items())


@EVERY
def test_the_configuration_selects_it(name: str) -> None:
    assert modality_of(DataSpec.model_validate({"modality": name})) is MODALITIES[name] is modality(name)


@EVERY
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_files_become_the_promised_array(name: str, kind: str) -> None:
    row = MODALITIES[name]
    decoded = row.read(file(kind))
    assert decoded.pixels.shape == (12, 16, row.channels)
    assert str(decoded.pixels.dtype) == row.dtype
    assert (decoded.pixels == row.decode(file(kind)).pixels).all()


@EVERY
def test_a_file_that_is_no_image_is_refused(name: str) -> None:
    with pytest.raises(ImageError):
        MODALITIES[name].read(b"no image")


@EVERY
def test_words_are_there_and_in_lower_case(name: str) -> None:
    row = MODALITIES[name]
    texts = [getattr(row.words, field.name) for field in fields(Words)]
    assert all(text and text == text.strip().lower() for text in texts)
    assert row.title.strip()


@EVERY
def test_limits_are_of_measures_and_in_order(name: str) -> None:
    valid = MODALITIES[name].valid
    assert set(valid.limits) <= set(MEASURES)
    for limit in valid.limits.values():
        assert (limit.caution > limit.refer) == (limit.end == "low")
        assert limit.mild
        assert limit.hard
    assert 0 < valid.tiny <= valid.small <= 1


@EVERY
def test_a_reference_is_read_for_its_sources_alone(name: str) -> None:
    valid = MODALITIES[name].valid
    assert (valid.reference is None) == (not valid.reference_sources)
    assert valid.likeness("elsewhere") is None
    black = appraise(np.zeros((75, 100, 3), np.uint8))
    for source in valid.reference_sources:
        likeness = valid.likeness(source)
        assert likeness is not None
        assert likeness.of(black)[1] == "refer"


@EVERY
def test_the_policy_exists(name: str) -> None:
    augmentation = MODALITIES[name].augmentation
    assert augmentation.policy in POLICIES
    if name in ("dermoscopy", "clinical"):
        assert resolve(augmentation) == resolve(AugmentSpec())


def test_another_array_than_promised_is_refused() -> None:
    row = MODALITIES["dermoscopy"]
    gray = Decoded(Image.new("L", (4, 3)), "L", "PNG")
    wrong = Modality(
        **{**{field.name: getattr(row, field.name) for field in fields(Modality)}, "decode": lambda data, **_: gray}
    )
    with pytest.raises(ImageError, match=r"1 channel\(s\) of uint8; dermoscopy takes 3 of uint8"):
        wrong.read(b"")
