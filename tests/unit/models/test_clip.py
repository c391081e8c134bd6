"""CLIP-type models: what is computed, and which files are refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import CONFIG, save_clip

from dermalyze.errors import ConfigError, MissingExtraError, ModelError, ResourceError
from dermalyze.models import clip
from dermalyze.models.clip import Clip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def copy(weights: Path, tmp_path: Path) -> Path:
    """To be spoilt."""
    for path in weights.parent.iterdir():
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / weights.name


def test_towers_are_those_of_open_clip(weights: Path) -> None:
    import open_clip
    import torch
    from safetensors.torch import load_file

    theirs = open_clip.CLIP(**json.loads(json.dumps(CONFIG["model_cfg"]))).eval()
    theirs.load_state_dict(load_file(weights))
    ours = Clip(str(weights))
    assert (ours.size, ours.mean, ours.std, ours.width) == ((32, 32), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 12)
    assert ours.scale == pytest.approx(float(theirs.logit_scale.exp()))
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    sentences = ["a photo of a mole", "melanoma"]
    with torch.no_grad():
        np.testing.assert_allclose(ours(images), theirs.encode_image(torch.from_numpy(images)).numpy(), atol=1e-5)
        tokens = open_clip.SimpleTokenizer(context_length=24)(sentences)
        np.testing.assert_allclose(ours.texts(sentences), theirs.encode_text(tokens).numpy(), atol=1e-4)
    np.testing.assert_allclose(ours.texts(sentences[1:]), ours.texts(sentences)[1:], atol=1e-4)


def test_a_prompt_that_would_be_cut_is_refused(weights: Path) -> None:
    ours = Clip(str(weights))
    assert ours.texts(["word " * 22]).shape == (1, 12)
    with pytest.raises(ConfigError, match="has 25 tokens; the model reads 24"):
        ours.texts(["word " * 23])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_cfg": {"text_cfg": {"hf_model_name": "roberta-base"}}}, "a text tower from another hub"),
        ({"model_cfg": {"text_cfg": {"hf_tokenizer_name": "t5"}}}, "a vocabulary from another hub"),
        ({"model_cfg": {"multimodal_cfg": {"width": 8}}}, "a decoder of captions"),
        ({"model_cfg": {"vision_cfg": {"depth": 3}}}, "no model can be built"),
        ({"model_cfg": {"embed_dim": "many"}}, "no model can be built"),
        ({"model_cfg": {"embed_dim": 13}}, r"tensor \S+ is F32"),
        ({"model_cfg": {"vision_cfg": {"layers": 2}}}, "misses 12 tensor"),
        ({"preprocess_cfg": {"std": [1, 0, 1]}}, "std above 0"),
    ],
)
def test_configurations_that_ask_for_more_or_make_no_sense_are_refused(
    copy: Path, change: dict[str, Any], message: str
) -> None:
    from dermalyze.config.base import merge

    copy.with_name("open_clip_config.json").write_text(json.dumps(merge(CONFIG, change)))
    with pytest.raises(ModelError, match=message):
        Clip(str(copy))


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"model_cfg": 3}', b"\x80\x04K\x01."])
def test_what_is_no_configuration_is_refused(copy: Path, content: bytes) -> None:
    copy.with_name("open_clip_config.json").write_bytes(content)
    with pytest.raises(ModelError, match="no configuration of open_clip"):
        Clip(str(copy))


def test_weights_that_are_missing_damaged_or_pickled_are_refused(copy: Path, tmp_path: Path) -> None:
    import torch

    with pytest.raises(ModelError, match="no such weight file"):
        Clip(str(tmp_path / "gone.safetensors"))
    torch.save({"a": torch.zeros(1)}, copy.with_name("clip.pt"))
    with pytest.raises(ModelError, match="import-weights"):
        Clip(str(copy.with_name("clip.pt")))
    copy.write_bytes(copy.read_bytes()[:-10])
    with pytest.raises(ModelError, match="damaged safetensors"):
        Clip(str(copy))
    copy.with_name("open_clip_config.json").unlink()
    with pytest.raises(ModelError, match="is not beside it"):
        Clip(str(copy))


def test_a_hub_that_is_not_reached_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub as hub

    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(hub, "get_hf_file_metadata", unreachable)
    with pytest.raises(ModelError, match=r"cannot reach open_clip_config.json of a/b .*; give a local .safetensors") as caught:
        Clip("hf-hub:a/b")
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_more_than_memory_is_refused_before_it_is_built(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "available_memory_bytes", lambda: 1000)
    with pytest.raises(ResourceError, match="choose a smaller model"):
        Clip(str(weights))


def test_without_its_extra_it_says_which(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtraError, match=r"dermalyze\[clip\]"):
        Clip(str(weights))
