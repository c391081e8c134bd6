"""The gate: real looks pass, what is no photograph of skin does not, and each reason is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermalyze.errors import ModelError
from dermalyze.imaging.modalities import MODALITIES
from dermalyze.imaging.quality import MEASURES, Appraisal, Likeness, appraise, unbent
from dermalyze.scoring.ood_images import SYNTHETIC
from dermalyze.serve.predictor.gate import UNJUDGED, VERDICTS, check_image, conclude, of_model, worst

VALID = MODALITIES["dermoscopy"].valid
LIMITS = VALID.limits


KIND = MODALITIES["dermoscopy"]


def dermoscopy() -> Likeness:
    """That of the reference."""
    found = VALID.likeness("ham10000")
    assert found is not None
    return found


def skin(seed: int) -> Appraisal:
    """Looks like those of HAM10000's middle, with a few per cent of chance in each."""
    middle = dermoscopy().mean
    values = np.expm1(middle) * (np.array(MEASURES) == "sharpness") + middle**2 * np.isin(MEASURES, ("dark", "light"))
    values = np.where(np.isin(MEASURES, ("sharpness", "dark", "light")), values, middle)
    values = values * np.random.default_rng(seed).uniform(0.97, 1.03, len(values))
    return Appraisal(*map(float, values))


def test_ordinary_dermoscopy_is_accepted() -> None:
    gate = check_image(skin(0), 600, 450, network=(224, 224), kind=KIND, likeness=dermoscopy())
    assert (gate.verdict, gate.quality, gate.modality, gate.reasons) == ("accept", "accept", "accept", ())
    json.dumps(gate.as_dict(), allow_nan=False)


@pytest.mark.parametrize("kind", sorted(set(SYNTHETIC) - {"clouds", "wood"}))
def test_what_is_no_skin_is_referred(kind: str) -> None:
    rng = np.random.default_rng(3)
    looks = [appraise(SYNTHETIC[kind](rng, 150, 200, number)) for number in range(12)]
    gates = [check_image(look, 200, 150, network=(64, 64), kind=KIND, likeness=dermoscopy()) for look in looks]
    assert sum(gate.verdict == "refer" for gate in gates) >= 10
    assert all(gate.reasons for gate in gates if gate.verdict != "accept")


def test_a_grey_film_is_unlike_dermoscopy_and_colour_is_unlike_films() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:150, :200]
    films = []
    for _ in range(80):
        grey = (
            120
            + rng.uniform(40, 90) * np.sin(x / rng.uniform(15, 40)) * np.cos(y / rng.uniform(15, 40))
            + rng.normal(0, 3, x.shape)
        )
        films.append(appraise(np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)))
    assert dermoscopy().of(films[0])[1] == "refer"
    of_films = Likeness.fit(films)
    assert sum(of_films.of(film)[1] == "accept" for film in films) >= 75
    assert of_films.of(skin(0))[1] == "refer"


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_of_quality(name: str) -> None:
    limit = LIMITS[name]
    sign = -1 if limit.end == "low" else 1
    for value, verdict, words in (
        (limit.caution, "accept", None),
        (limit.refer, "caution", limit.mild),
        (limit.refer + sign * 1e-3, "refer", limit.hard),
    ):
        values = {**dict(zip(MEASURES, skin(0).as_tuple(), strict=True)), name: value}
        gate = check_image(Appraisal(**values), 600, 450, network=(224, 224), kind=KIND)
        assert gate.quality == verdict
        assert gate.reasons == (() if words is None else (words,))


@pytest.mark.parametrize(("edge", "verdict"), [(112, "accept"), (111, "caution"), (56, "caution"), (55, "refer")])
def test_size(edge: int, verdict: str) -> None:
    assert check_image(skin(0), 600, edge, network=(224, 224), kind=KIND).quality == verdict


def test_of_which_training_a_model_knows() -> None:
    assert of_model(None, {"source": "folder"}, KIND) is None
    assert all(of_model(None, {"source": source}, KIND) is not None for source in VALID.reference_sources)
    assert MODALITIES["clinical"].valid.likeness("ham10000") is None
    own = Likeness.fit([skin(seed) for seed in range(60)])
    known = of_model(json.loads(json.dumps(own.as_dict())), {"source": "folder"}, KIND)
    assert known is not None
    assert known.of(skin(1))[0] == pytest.approx(own.of(skin(1))[0], rel=1e-3)
    gate = check_image(skin(0), 600, 450, network=(64, 64), kind=KIND)
    assert (gate.modality, gate.score) == ("accept", None)


@pytest.mark.parametrize(
    "change",
    [{"mean": [0.0]}, {"root": "x"}, {"caution": float("nan")}, {"measures": ["a"]}, {"images": None}, {"refer": None}],
)
def test_damaged_looks_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        Likeness.from_dict({**dermoscopy().as_dict(), **change})


def test_the_distance_is_that_of_the_formula() -> None:
    pictures = [skin(seed) for seed in range(200)]
    values = np.stack([unbent(p) for p in pictures])
    like = Likeness.fit(pictures)
    inverse = np.linalg.inv(np.cov(values.T) + 1e-5 * np.eye(len(MEASURES)))
    off = unbent(skin(999)) - values.mean(axis=0)
    assert like.of(skin(999))[0] == pytest.approx(float(np.sqrt(off @ inverse @ off)), rel=1e-6)


@given(st.lists(st.sampled_from(VERDICTS), max_size=5), st.sampled_from(("answer", "set", "refer")))
def test_nothing_makes_a_verdict_better(verdicts: list[str], decision: str) -> None:
    verdict, reasons = conclude(UNJUDGED, decision, None if decision == "answer" else "why", ["age is beyond"] * len(verdicts))
    assert VERDICTS.index(verdict) >= {"answer": 0, "set": 1, "refer": 2}[decision]
    assert bool(reasons) == (verdict != "accept")
    assert VERDICTS.index(worst(verdicts)) == max(map(VERDICTS.index, verdicts), default=0)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_picture_is_measured(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    looks = appraise(pixels)
    assert np.isfinite(looks.as_tuple()).all()
    assert 0 <= looks.saturation <= 1
    assert 0 <= looks.variety <= 9
    mirrored = appraise(np.ascontiguousarray(pixels[:, ::-1])).as_tuple()
    assert np.allclose(mirrored, looks.as_tuple(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"caution": 1e308, "refer": 1e308},
        {"images": -1},
        {"caution": 9.0, "refer": 3.0},
        {"caution": 0.0},
        {"mean": [1e300] * 11},
    ],
)
def test_limits_that_would_silence_the_gate_are_damage(change: dict[str, object]) -> None:
    known = dermoscopy().as_dict()
    assert Likeness.from_dict(known).refer == known["refer"]
    with pytest.raises(ModelError, match="damaged"):
        Likeness.from_dict({**known, **change})
