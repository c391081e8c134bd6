"""Prompt ensembles against open_clip's own zero-shot classifier and a direct computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from clips import save_clip

from dermalyze.config.zero_shot import ZeroShotSpec
from dermalyze.errors import DataError
from dermalyze.models.clip import Clip
from dermalyze.scoring.features.linear_probe import by_words
from dermalyze.scoring.features.zero_shot import directions, zero_shot

TEMPLATES = ("a photo of {}.", "dermoscopy of {}, close", "{}")


def test_ensembles_of_templates_are_those_of_open_clip(tmp_path: Path) -> None:
    model = Clip(str(save_clip(tmp_path)))
    import open_clip

    names = ["melanoma", "a mole", "a basal cell carcinoma"]
    spec = ZeroShotSpec(weights="x", templates=TEMPLATES, prompts={name: (name,) for name in names})
    ours = directions([model.texts(spec.sentences(name)) for name in names])
    theirs = open_clip.build_zero_shot_classifier(model._model, model._tokenizer, names, TEMPLATES).numpy().T
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not np.allclose(ours[0], ours[1], atol=1e-2)  # the words make a difference
    images = model(np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32))
    unit = torch.nn.functional.normalize(torch.from_numpy(images).double(), dim=1)
    direct = (model.scale * unit @ torch.from_numpy(theirs).double().T).softmax(dim=1).numpy()
    np.testing.assert_allclose(zero_shot(images, ours, model.scale), direct, atol=1e-5)


def test_a_long_text_weighs_no_more_and_a_class_may_have_more_texts() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(3, 5)), rng.normal(size=(1, 5))
    found = directions([a, b])
    np.testing.assert_allclose(directions([a * [[1], [10], [0.1]], b * 7]), found)
    mean = sum(row / np.linalg.norm(row) for row in a) / 3
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean))


def test_prompts_of_other_classes_than_the_run_s_are_refused() -> None:
    words = {"classes": ["mel", "nv"], "directions": np.eye(2).tolist(), "scale": 10.0}
    chosen = by_words({"zero_shot": words}, ["mel", "nv"])
    assert chosen is not None
    np.testing.assert_allclose(chosen.classify(np.eye(2)), zero_shot(np.eye(2), np.eye(2), 10.0))
    assert by_words({}, ["mel", "nv"]) is None
    for classes in (["nv", "mel"], ["mel", "nv", "bcc"]):
        with pytest.raises(DataError, match="classes mel, nv; run embed again with --clip"):
            by_words({"zero_shot": words}, classes)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e6])
def test_probabilities_stay_above_zero_and_sum_to_one(scale: float) -> None:
    rng = np.random.default_rng(2)
    probs = zero_shot(rng.normal(size=(9, 4)), directions([rng.normal(size=(2, 4)) for _ in range(3)]), scale)
    assert (probs > 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1)
