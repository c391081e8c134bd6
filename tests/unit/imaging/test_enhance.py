"""Steps of preprocessing: in the record, bounded, and the same wherever an image becomes a network's input."""

from __future__ import annotations

import io
import typing
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.data import PreprocessSpec, StepSpec
from dermalyze.config.experiment import build_experiment
from dermalyze.errors import ConfigError, MissingExtraError, ModelError
from dermalyze.imaging.decode import decode
from dermalyze.imaging.enhance import LIMITS, LONGEST_PX, STEPS, enhanced, require_steps
from dermalyze.imaging.preprocess import Preprocessing, to_size
from dermalyze.serve.predictor.preparing import prepare

HALF = (0.5, 0.5, 0.5)
ALL = [{"kind": "clahe"}, {"kind": "shades_of_gray"}, {"kind": "hair_removal"}]


def resolved(steps: list[dict[str, object]], **settings: object) -> Preprocessing:
    spec = PreprocessSpec.model_validate({"steps": steps, "size": [48, 64], **settings})
    return Preprocessing.resolve(spec, size=(8, 8), mean=HALF, std=HALF)


def photograph(width: int = 300, height: int = 225) -> Image.Image:
    pixels = np.random.default_rng(0).integers(60, 200, (height // 5, width // 5, 3)) * [1.0, 0.8, 0.6]
    return Image.fromarray(pixels.astype(np.uint8)).resize((width, height))


def test_the_tables_are_those_of_the_specs() -> None:
    specs = {spec.model_fields["kind"].default: spec for spec in typing.get_args(typing.get_args(StepSpec)[0])}
    assert specs.keys() == STEPS.keys() == LIMITS.keys()
    for kind, spec in specs.items():
        assert set(spec.model_fields) - {"kind"} == set(LIMITS[kind])


def test_steps_stand_in_the_record_and_nowhere_else() -> None:
    p = resolved(ALL)
    assert [step["kind"] for step in p.as_dict()["steps"]] == ["clahe", "shades_of_gray", "hair_removal"]
    assert Preprocessing.from_dict(p.as_dict()) == p
    assert "steps" not in resolved([]).as_dict()
    assert p.geometry == resolved([])


@pytest.mark.parametrize("kind", ["squash", "resize_crop", "pad"])
@pytest.mark.parametrize("step", ALL, ids=lambda step: step["kind"])
def test_each_step_changes_the_input_the_same_way_everywhere(step: dict[str, object], kind: str) -> None:
    p, sink = resolved([step], kind=kind), io.BytesIO()
    photograph().save(sink, "PNG")
    plain, seen = (to_size(decode(sink.getvalue()).image, one) for one in (p.geometry, p))
    assert seen.shape == (48, 64, 3)
    assert not np.array_equal(plain, seen)
    assert np.array_equal(seen, prepare(sink.getvalue(), p).pixels)  # as served
    assert np.array_equal(seen, to_size(np.asarray(photograph()), p))  # from an array
    if kind == "pad":
        assert np.array_equal((plain == 0).all(axis=2).any(), (seen == 0).all(axis=2).any())  # bars stay black


def test_order_counts_and_a_large_photograph_is_reduced_first() -> None:
    one, other = (resolved(steps) for steps in (ALL[:2], ALL[1::-1]))
    assert not np.array_equal(to_size(photograph(), one), to_size(photograph(), other))
    assert max(enhanced(photograph(3000, 2000), resolved(ALL[:1]).steps).size) == LONGEST_PX


@pytest.mark.parametrize(
    "steps",
    [
        [{"kind": "sharpen"}],
        [{"kind": "clahe", "clip": 2.0}],
        [{"kind": "clahe", "clip": 2.0, "tiles": 0}],
        [{"kind": "clahe", "clip": True, "tiles": 8}],
        [{"kind": "shades_of_gray", "power": float("nan")}],
        [{"kind": "clahe", "clip": 2.0, "tiles": 8}] * 17,
        {"kind": "clahe"},
        ["clahe"],
    ],
)
def test_a_record_with_other_steps_is_refused(steps: object) -> None:
    with pytest.raises(ModelError, match="preprocessing: steps out of range or of the wrong type"):
        Preprocessing.from_dict({**resolved([]).as_dict(), "steps": steps})


@pytest.mark.parametrize(
    ("preprocess", "said"),
    [
        ({"steps": [{"kind": "clahe"}], "draft": True}, "leave draft or steps out"),
        ({"steps": [{"kind": "clahe", "tiles": 0}]}, "tiles"),
        ({"steps": [{"kind": "clahee"}]}, "did you mean 'clahe'"),
    ],
)
def test_what_is_no_step_is_refused_when_it_is_read(preprocess: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_experiment({"preprocess": preprocess})


def test_other_pixels_than_rgb_in_eight_bits_have_no_steps() -> None:
    spec = PreprocessSpec.model_validate({"steps": [{"kind": "clahe"}], "size": 8})
    with pytest.raises(ConfigError, match="RGB in eight bits, not for 1 x uint16"):
        Preprocessing.resolve(spec, size=(8, 8), mean=(0.5,), std=(0.5,), dtype="uint16")


def test_without_opencv_hair_removal_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    p = resolved(ALL)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"dermalyze\[cv\]"):
        Preprocessing.from_dict(p.as_dict())
    require_steps(resolved(ALL[:2]).steps)
    assert replace(p, steps=()) == p.geometry
