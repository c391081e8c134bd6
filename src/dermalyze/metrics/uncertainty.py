"""How uncertain several passes of a network are, and in what way: each alone (aleatoric), or of each other (epistemic).

    H[mean p] = mean H[p] + MI
    total     = aleatoric + epistemic

All entropies in nats, all numbers float64. The passes may be views of an image, draws of dropout or members of an ensemble;
what follows from their differing is a property of those passes, and only under dropout or an ensemble one of the weights.

Gal 2016, "Uncertainty in Deep Learning", section 3.3; Depeweg et al. 2018, arXiv:1710.07283; Lakshminarayanan et al. 2017,
arXiv:1612.01474
"""

# Shapes: N images, S passes, C classes, Q questions per image, K answers to each.

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dermalyze.metrics.ranking import Floats


def mean(probs_NSC: Floats) -> Floats:
    """(N, C) mean probability of the passes: the answer that they give together."""
    return np.asarray(probs_NSC.mean(axis=1))


def variance(probs_NSC: Floats) -> Floats:
    """(N,) variance of each class's probability over the passes, summed over the classes: 0 to 1 - 1/S.

        sum_c mean_s (p_sc - mean_s p_sc)^2

    >>> variance(np.array([[[1.0, 0.0], [0.0, 1.0]]]))
    array([0.5])
    """
    return np.asarray(probs_NSC.var(axis=1).sum(axis=1))


def entropy(probs: Floats) -> Floats:
    """-sum p log p over the last axis, 0 log 0 = 0: 0 to log C.

    >>> entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).round(4)
    array([0.6931, 0.    ])

    Shannon 1948, doi:10.1002/j.1538-7305.1948.tb01338.x
    """
    logs = np.log(np.where(probs > 0, probs, 1.0))
    return np.asarray(np.abs((probs * logs).sum(axis=-1)))


def predictive_entropy(probs_NSC: Floats) -> Floats:
    """(N,) entropy of the mean: all the uncertainty there is."""
    return entropy(mean(probs_NSC))


def expected_entropy(probs_NSC: Floats) -> Floats:
    """(N,) mean entropy of the passes: what each is uncertain of by itself (aleatoric)."""
    return np.asarray(entropy(probs_NSC).mean(axis=1))


def mutual_information(probs_NSC: Floats) -> Floats:
    """(N,) what the passes are uncertain of between them (epistemic; BALD): 0 where all are equal, at most log min(S, C).

        H[mean_s p_s] - mean_s H[p_s] = mean_s KL(p_s || mean p)

    The second form is computed: it cannot fall below 0 by rounding, and is exactly 0 for equal passes.

    >>> mutual_information(np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])).round(4)
    array([0.6931, 0.    ])

    Houlsby et al. 2011, arXiv:1112.5745; Gal, Islam & Ghahramani 2017, arXiv:1703.02910
    """
    same_N = (probs_NSC == probs_NSC[:, :1]).all(axis=(1, 2))
    mean_N1C = probs_NSC.mean(axis=1, keepdims=True)
    ratio_NSC = np.where(probs_NSC > 0, probs_NSC, 1.0) / np.where(probs_NSC > 0, mean_N1C, 1.0)
    divergence_N = (probs_NSC * np.log(ratio_NSC)).sum(axis=2).mean(axis=1)
    return np.where(same_N, 0.0, np.maximum(divergence_N, 0.0))


def variation_ratio(probs_NSC: Floats) -> Floats:
    """(N,) share of the passes that do not name the class that most name: 0 to 1 - 1/min(S, C).

    >>> variation_ratio(np.array([[[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]])).round(3)
    array([0.333])

    Freeman 1965, "Elementary Applied Statistics", section 5
    """
    return np.asarray(1 - _votes(probs_NSC).max(axis=1))


def disagreement(probs_NSC: Floats) -> Floats:
    """(N,) share of all pairs of passes that name different classes; 0 for a single pass.

    >>> disagreement(np.array([[[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]])).round(3)
    array([0.667])

    Gini 1912's heterogeneity of the votes, without replacement
    """
    passes = probs_NSC.shape[1]
    heterogeneity_N = 1 - np.square(_votes(probs_NSC)).sum(axis=1)
    return np.asarray(heterogeneity_N * passes / max(1, passes - 1))


SOURCES: Mapping[str, Callable[[Floats], Floats]] = {
    "predictive_entropy": predictive_entropy,
    "expected_entropy": expected_entropy,
    "mutual_information": mutual_information,
    "variance": variance,
    "variation_ratio": variation_ratio,
    "disagreement": disagreement,
}
"""Probabilities of several passes (N, S, C) to an uncertainty (N,), higher is less sure."""


def summed(source: Callable[[Floats], Floats], probs_NSQK: Floats) -> Floats:
    """(N,) an uncertainty of images that each have several independent answers, as labels are: the sum over them.

    Entropies of independent answers add up; of a single answer it is the uncertainty itself.

    Args:
        source: one of `SOURCES`.
        probs_NSQK: of each pass and answer, each summing to 1 over K; see `dermalyze.tasks.base.Task.choices`.

    >>> one, other = [[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]
    >>> summed(mutual_information, np.array([[one, other]])).round(4)
    array([0.6931])
    """
    answers = range(probs_NSQK.shape[2])
    return np.asarray(np.sum([source(np.ascontiguousarray(probs_NSQK[:, :, q])) for q in answers], axis=0))


def _votes(probs_NSC: Floats) -> Floats:
    """(N, C) share of the passes that name each class; of equals the first."""
    named_NS = probs_NSC.argmax(axis=2)
    return np.asarray((named_NS[:, :, None] == np.arange(probs_NSC.shape[2])).mean(axis=1))
