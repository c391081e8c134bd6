"""The modality of a data set."""

from __future__ import annotations

import pickle

import pytest

from dermalyze.config.data import DataSpec
from dermalyze.errors import ConfigError
from dermalyze.imaging.modalities import MODALITIES, modality, modality_of


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"modality 'dermoscop' is not supported; allowed: dermoscopy, clinical.*dermoscopy"):
        modality("dermoscop")


def test_the_choice_wins_over_the_source() -> None:
    assert modality_of(DataSpec.model_validate({"source": {"kind": "pad_ufes_20"}})).name == "clinical"
    chosen = DataSpec.model_validate({"source": {"kind": "pad_ufes_20"}, "modality": "dermoscopy"})
    assert modality_of(chosen).name == "dermoscopy"


@pytest.mark.parametrize("name", MODALITIES)
def test_the_reader_goes_to_worker_processes(name: str) -> None:
    read = pickle.loads(pickle.dumps(MODALITIES[name].read))  # noqa: S301 - our own bytes
    with pytest.raises(Exception, match="empty file"):
        read(b"")
