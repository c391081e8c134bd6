"""Calibrators: from the scores of an inference recipe to probabilities that can be taken at their word.

Each is fitted on a part that neither the weights nor the choice of an epoch have seen, and is a few numbers in JSON.
"""

# Shapes: N images, C classes, K parameters, F folds.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

from dermalyze.calibration.newton import minimise
from dermalyze.errors import ModelError, nearest
from dermalyze.metrics.activation import softmax
from dermalyze.metrics.classification import log_losses
from dermalyze.metrics.ranking import Floats, Ints

FOLDS = 5
VECTOR_RIDGE = (
    1.0  # weight of the prior that scale is 1 and bias 0, in images: a class of three images is not taken at its word
)
SCALE_RIDGE = 1e-3  # only keeps the scale finite where every image is right
SMALLEST_SCALE = 0.01

# -- fitting: scores (N, C), labels (N,), log-prior shift (C,) -> parameters ------------------------------------------------


def fit_none(logits_NC: Floats, labels_N: Ints, shift_C: Floats) -> dict[str, Any]:
    """Nothing: the softmax as it is."""
    return {}


def fit_temperature(logits_NC: Floats, labels_N: Ints, shift_C: Floats) -> dict[str, Any]:
    """One temperature for all logits, by maximum likelihood; it changes no ranking of the classes of an image.

    Guo et al. 2017, arXiv:1706.04599
    """
    scale = _newton(logits_NC[:, :, None], np.zeros_like(logits_NC), labels_N, np.ones(1), SCALE_RIDGE)
    return {"temperature": 1 / max(float(scale[0]), SMALLEST_SCALE)}


def fit_prior_temperature(logits_NC: Floats, labels_N: Ints, shift_C: Floats) -> dict[str, Any]:
    """A temperature, after undoing the shift of the class shares that weights or sampling in training have caused.

        p_c ~ exp(z_c / T) * true share of c / share of c as training weighed it

    Elkan 2001, "The foundations of cost-sensitive learning"; Saerens et al. 2002, doi:10.1162/089976602753284446
    """
    offset_NC = np.broadcast_to(shift_C, logits_NC.shape)
    scale = _newton(logits_NC[:, :, None], offset_NC, labels_N, np.ones(1), SCALE_RIDGE)
    return {"temperature": 1 / max(float(scale[0]), SMALLEST_SCALE), "shift": shift_C.tolist()}


def fit_vector(logits_NC: Floats, labels_N: Ints, shift_C: Floats) -> dict[str, Any]:
    """A scale and a bias for each class, by maximum likelihood with a weak prior at 1 and 0.

    Guo et al. 2017, arXiv:1706.04599
    """
    classes = logits_NC.shape[1]
    design_NCK = np.concatenate([np.eye(classes) * logits_NC[:, :, None], np.tile(np.eye(classes), (len(logits_NC), 1, 1))], 2)
    start_K = np.repeat([1.0, 0.0], classes)
    theta_K = _newton(design_NCK, np.zeros_like(logits_NC), labels_N, start_K, VECTOR_RIDGE)
    return {"scale": theta_K[:classes].tolist(), "bias": theta_K[classes:].tolist()}


def fit_isotonic(logits_NC: Floats, labels_N: Ints, shift_C: Floats) -> dict[str, Any]:
    """A rising curve for each class against the rest (pool adjacent violators), then scaled to sum to 1.

    No probability is moved nearer to 0 or 1 than half an image of the part allows.

    Zadrozny & Elkan 2002, doi:10.1145/775047.775151
    """
    probs_NC, least = softmax(logits_NC), 0.5 / max(1, len(labels_N))
    curves = [isotonic_curve(probs_NC[:, c], labels_N == c) for c in range(probs_NC.shape[1])]
    return {
        "x": [x.tolist() for x, _ in curves],
        "y": [np.clip(y, least, 1 - least).tolist() for _, y in curves],
    }


# -- applying: scores (B, C) and parameters -> probabilities (B, C) ---------------------------------------------------------


def apply_none(logits_BC: Floats) -> Floats:
    """Softmax."""
    return softmax(logits_BC)


def apply_temperature(logits_BC: Floats, *, temperature: float) -> Floats:
    """Softmax of the logits divided by the temperature."""
    return softmax(logits_BC / temperature)


def apply_prior_temperature(logits_BC: Floats, *, temperature: float, shift: Sequence[float]) -> Floats:
    """Softmax of the logits divided by the temperature, plus the shift of the log shares."""
    return softmax(logits_BC / temperature + np.asarray(shift))


def apply_vector(logits_BC: Floats, *, scale: Sequence[float], bias: Sequence[float]) -> Floats:
    """Softmax of scale * logits + bias."""
    return softmax(logits_BC * np.asarray(scale) + np.asarray(bias))


def apply_isotonic(logits_BC: Floats, *, x: Sequence[Sequence[float]], y: Sequence[Sequence[float]]) -> Floats:
    """Each class's probability through its curve (linear between the knots, flat beyond), scaled to sum to 1."""
    probs_BC = softmax(logits_BC)
    curved_BC = np.stack([np.interp(probs_BC[:, c], x[c], y[c]) for c in range(probs_BC.shape[1])], axis=1)
    return np.asarray(curved_BC / curved_BC.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Method:
    """A row of a table such as `CALIBRATORS`: how it is fitted, how it is applied, the shape of each parameter (0, 1 or 2
    axes), and which of them must be above 0."""

    fit: Callable[[Floats, Ints, Floats], dict[str, Any]]
    apply: Callable[..., Floats]
    axes: Mapping[str, int]
    above_0: tuple[str, ...] = ()


CALIBRATORS: dict[str, Method] = {  # the simplest first: the choice prefers it where another is not clearly better
    "none": Method(fit_none, apply_none, {}),
    "temperature": Method(fit_temperature, apply_temperature, {"temperature": 0}, ("temperature",)),
    "prior_temperature": Method(
        fit_prior_temperature, apply_prior_temperature, {"temperature": 0, "shift": 1}, ("temperature",)
    ),
    "vector": Method(fit_vector, apply_vector, {"scale": 1, "bias": 1}),
    "isotonic": Method(fit_isotonic, apply_isotonic, {"x": 2, "y": 2}),
}


SAME_ANSWERS = ("none", "temperature")
"""Calibrators that keep the order of an image's classes: they change how sure an answer is, never the answer."""
CHOICES = {"auto": SAME_ANSWERS, "any": tuple(CALIBRATORS)}
"""What `inference.calibration` may leave open, and the calibrators that are then chosen from."""


@dataclass(frozen=True)
class Calibrator:
    """A fitted calibrator.

    Attributes:
        kind: a key of `methods`.
        parameters: as its fit gave them.
        methods: those of the task.

    >>> Calibrator("temperature", {"temperature": 2.0})(np.array([[2.0, 0.0]])).round(3)
    array([[0.731, 0.269]])
    """

    kind: str
    parameters: dict[str, Any]
    methods: Mapping[str, Method] = field(default_factory=lambda: CALIBRATORS, repr=False, compare=False)

    def __call__(self, logits_BC: Floats) -> Floats:
        """Probabilities (B, C), float64; of `CALIBRATORS` each row sums to 1; B may be 0."""
        return self.methods[self.kind].apply(np.asarray(logits_BC, dtype=np.float64), **self.parameters)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"kind": self.kind, "parameters": self.parameters}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], classes: int, methods: Mapping[str, Method] = CALIBRATORS) -> Calibrator:
        """Read what `as_dict` gave, checked: kind, names, shapes, finite numbers, rising knots.

        Raises:
            ModelError: anything else.
        """
        kind, parameters = values.get("kind"), values.get("parameters")
        if not isinstance(kind, str) or kind not in methods:
            allowed = f"{', '.join(methods)}{nearest(str(kind), [*methods])}"
            raise ModelError(f"calibration: kind {kind!r} is not one of {allowed}; calibrate again")
        axes = methods[kind].axes
        if not isinstance(parameters, dict) or parameters.keys() != axes.keys():
            raise ModelError(f"calibration: parameters of '{kind}' must be {sorted(axes)}; calibrate again")
        for name, n in axes.items():
            rows = parameters[name] if n == 2 else [parameters[name]]
            sound = isinstance(rows, list) and len(rows) == (classes if n == 2 else 1)
            if not (sound and all(_numbers(row, classes if n == 1 else None, scalar=n == 0) for row in rows)):
                raise ModelError(f"calibration: {name} of '{kind}' does not fit {classes} classes; calibrate again")
        if kind == "isotonic" and not all(
            len(x) == len(y) and (np.diff(x) >= 0).all() and min(y) > 0
            for x, y in zip(parameters["x"], parameters["y"], strict=True)
        ):
            raise ModelError("calibration: the isotonic curves do not rise; calibrate again")
        for name in methods[kind].above_0:
            if not np.min(parameters[name]) > 0:
                raise ModelError(f"calibration: {name} {parameters[name]} must be above 0; calibrate again")
        return cls(kind, parameters, methods)


@dataclass(frozen=True, eq=False)
class Trial:
    """One calibrator under cross-validation.

    Attributes:
        kind: its name.
        losses_G: log loss summed over each group's images, which its fit has not seen.
        images: how many there are; an image of several labels counts as the share of its labels whose target is there.
    """

    kind: str
    losses_G: Floats
    images: float

    @property
    def log_loss(self) -> float:
        """Mean over images."""
        return float(self.losses_G.sum() / self.images)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"kind": self.kind, "log_loss": self.log_loss}


def cross_validate(
    logits_NC: Floats,
    targets: Ints,
    groups_N: Sequence[str],
    shift_C: Floats,
    methods: Mapping[str, Method] = CALIBRATORS,
    losses: Callable[[Floats, Ints], Floats] = log_losses,
) -> tuple[Trial, ...]:
    """Try each calibrator on images that its fit has not seen.

    Folds are of whole groups, by a hash of their names, so that they depend on no order and no seed.

    Args:
        logits_NC: scores of the calibration split.
        targets: class index of each; of several labels (N, C) 1, 0, or -1 where missing.
        groups_N: what must stay together.
        shift_C: see `fit_prior_temperature`.
        methods: those of the task.
        losses: probabilities and targets to the log loss of each image (N,).

    Returns:
        a trial for each of `methods`, in their order.
    """
    names = sorted(set(groups_N), key=lambda name: sha256(str(name).encode()).digest())
    rank = {name: i for i, name in enumerate(names)}
    group_N = np.array([rank[name] for name in groups_N], dtype=np.int64)
    trials = []
    images = float((targets.reshape(len(targets), -1) >= 0).mean(axis=1).sum()) if len(targets) else 0.0
    for kind in methods:
        losses_N = np.zeros(len(targets))
        for fold in range(min(FOLDS, len(names))):
            held = group_N % FOLDS == fold
            fitted = fit(kind, logits_NC[~held], targets[~held], shift_C, methods)
            losses_N[held] = losses(fitted(logits_NC[held]), targets[held])
        trials.append(Trial(kind, np.asarray(np.bincount(group_N, losses_N), dtype=np.float64), images))
    return tuple(trials)


def simplest(trials: Sequence[Trial], kinds: Sequence[str]) -> str:
    """The calibrator to take: a later one of `kinds` must beat the one taken so far by more than a standard error.

    Args:
        trials: as `cross_validate` gives them.
        kinds: those to choose from, the simplest first.
    """
    losses = {trial.kind: trial.losses_G for trial in trials}
    best = kinds[0]
    for kind in kinds[1:]:
        gain_G = losses[best] - losses[kind]
        if len(gain_G) > 1 and gain_G.sum() > np.sqrt(len(gain_G) * gain_G.var(ddof=1)):
            best = kind
    return best


def asked_for(asked: str, trials: Sequence[Trial], choices: Mapping[str, Sequence[str]] = CHOICES) -> str:
    """The calibrator that `inference.calibration` names, or the one that the trials choose where it leaves that open."""
    return simplest(trials, choices[asked]) if asked in choices else asked


def fit(
    kind: str, logits_NC: Floats, targets: Ints, shift_C: Floats, methods: Mapping[str, Method] = CALIBRATORS
) -> Calibrator:
    """Fit one calibrator.

    >>> rows = np.tile([[4.0, 0.0]], (10, 1))
    >>> fit("temperature", rows, np.array([0] * 8 + [1] * 2), np.zeros(2))(rows[:1]).round(2)
    array([[0.8, 0.2]])
    """
    return Calibrator(kind, methods[kind].fit(np.asarray(logits_NC, dtype=np.float64), targets, shift_C), methods)


def reprior(probs_BC: Floats, known_C: Floats, wanted_C: Floats) -> Floats:
    """Calibrated probabilities for another population, in which the classes have other shares but look the same.

        p'_c ~ p_c * wanted share of c / share of c in the population it was calibrated on

    Args:
        probs_BC: calibrated probabilities.
        known_C: shares of the classes where they were calibrated, > 0.
        wanted_C: shares where they are to be used, >= 0.

    >>> reprior(np.array([[0.5, 0.5]]), np.array([0.5, 0.5]), np.array([0.9, 0.1]))
    array([[0.9, 0.1]])

    Saerens et al. 2002, doi:10.1162/089976602753284446
    """
    weighted_BC = probs_BC * (wanted_C / known_C)
    return np.asarray(weighted_BC / weighted_BC.sum(axis=1, keepdims=True))


def isotonic_curve(scores_N: Floats, hits_N: Any) -> tuple[Floats, Floats]:
    """Knots of the rising step function that fits 0/1 outcomes best in squares: pool adjacent violators.

    Returns:
        scores and values (each rising); a flat stretch keeps its two ends.

    >>> isotonic_curve(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 1, 0, 1]))
    (array([0.1, 0.2, 0.3, 0.4]), array([0. , 0.5, 0.5, 1. ]))

    Ayer et al. 1955, doi:10.1214/aoms/1177728423
    """
    if not len(scores_N):
        return np.array([0.0, 1.0]), np.array([0.0, 1.0])
    x, inverse = np.unique(scores_N, return_inverse=True)
    count, total = np.bincount(inverse).astype(float), np.bincount(inverse, np.asarray(hits_N, dtype=float))
    blocks: list[list[float]] = []  # sum, count, first, last
    for i in range(len(x)):
        blocks.append([total[i], count[i], i, i])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            add, n, _, last = blocks.pop()
            blocks[-1] = [blocks[-1][0] + add, blocks[-1][1] + n, blocks[-1][2], last]
    knots = [(int(end), block[0] / block[1]) for block in blocks for end in dict.fromkeys(block[2:])]
    return x[[i for i, _ in knots]], np.array([value for _, value in knots])


def _newton(design_NCK: Floats, offset_NC: Floats, labels_N: Ints, start_K: Floats, ridge: float) -> Floats:
    """Minimise the summed log loss of softmax(offset + design theta) + ridge / 2 |theta - start|^2, which is convex."""
    rows = np.arange(len(labels_N))

    def value(at: Floats) -> float:
        losses = log_losses(softmax(offset_NC + design_NCK @ at), labels_N)
        return float(losses.sum() + ridge / 2 * np.square(at - start_K).sum())

    def shape(at: Floats) -> tuple[Floats, Floats]:
        probs_NC = softmax(offset_NC + design_NCK @ at)
        mean_NK = np.einsum("nc,nck->nk", probs_NC, design_NCK)
        slope_K = (mean_NK - design_NCK[rows, labels_N]).sum(axis=0) + ridge * (at - start_K)
        flat, weight = design_NCK.reshape(-1, len(at)), probs_NC.reshape(-1, 1)
        return slope_K, (flat * weight).T @ flat - mean_NK.T @ mean_NK + ridge * np.eye(len(at))

    return minimise(value, shape, start_K)


def _numbers(row: Any, length: int | None, *, scalar: bool) -> bool:
    """Whether a JSON value is a finite number (scalar), or a list of them of the length (None: any, but not empty)."""
    values = [row] if scalar else row
    if not isinstance(values, list) or not values or (length is not None and not scalar and len(values) != length):
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and np.isfinite(v) for v in values)
