"""Newton's method for a convex function of a few parameters, with steps halved until they help."""

# Shapes: K parameters.

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dermalyze.metrics.ranking import Floats

MOST_STEPS, SHORTEST, LEAST_GAIN = 100, 1e-6, 1e-10


def minimise(value: Callable[[Floats], float], shape: Callable[[Floats], tuple[Floats, Floats]], start_K: Floats) -> Floats:
    """(K,) where a strictly convex function is least; stops when a step gains under 1e-10 of the value.

    Args:
        value: of the function at (K,).
        shape: its gradient (K,) and its Hessian (K, K), positive definite.
        start_K: where to begin.

    >>> minimise(lambda x: float(((x - 3) ** 2).sum()), lambda x: (2 * (x - 3), 2 * np.eye(1)), np.zeros(1)).tolist()
    [3.0]

    Boyd & Vandenberghe 2004, Convex Optimization, section 9.5
    """
    theta, before = start_K.copy(), value(start_K)
    for _ in range(MOST_STEPS):
        slope_K, curve_KK = shape(theta)
        step, size = np.linalg.solve(curve_KK, slope_K), 1.0
        while size > SHORTEST and value(theta - size * step) > before:
            size /= 2
        after = value(theta - size * step)
        if not after < before:
            break
        theta, gain, before = theta - size * step, before - after, after
        if gain < LEAST_GAIN * (1 + abs(after)):
            break
    return theta
