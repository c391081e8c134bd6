"""How each of the seven classes tends to look, as one table, and the drawing of one lesion's look from it.

A *look* is one number for each name in `NEUTRAL`. `shape` and `colour` names are read by `lesion.paint_lesion`,
`texture` and `signs` names are structures in `lesion.STRUCTURES`.
"""

from __future__ import annotations

import numpy as np

from dermalyze.config.classes import HAM10000_CLASSES

CLASSES = tuple(HAM10000_CLASSES)

GROUPS: dict[str, tuple[str, ...]] = {
    "shape": ("asymmetry", "irregularity", "softness"),
    "colour": ("melanin", "blood", "blue", "yellow", "variegation", "centre"),
    "texture": (
        "network",
        "atypical_network",
        "ring_network",
        "globules",
        "irregular_dots",
        "follicles",
        "lacunae",
        "fissures",
    ),
    "signs": (
        "vessels",
        "nests",
        "milia",
        "comedones",
        "scar",
        "scale",
        "veil",
        "regression",
        "streaks",
        "crust",
    ),
}

# What a look holds where the table of its class is silent.
NEUTRAL: dict[str, float] = {name: 0.0 for names in GROUPS.values() for name in names}

# For each class: name -> (chance that it is there, least, most).
Span = tuple[float, float, float]
LOOKS: dict[str, dict[str, Span]] = {
    "akiec": {
        "asymmetry": (1, 0.2, 0.6),
        "irregularity": (1, 0.4, 0.8),
        "softness": (1, 0.4, 0.8),
        "melanin": (1, 0.05, 0.35),
        "blood": (1, 0.30, 0.60),
        "yellow": (0.5, 0.05, 0.20),
        "variegation": (1, 0.2, 0.5),
        "follicles": (0.85, 0.6, 1.0),
        "scale": (0.75, 0.5, 1.0),
        "crust": (0.15, 0.5, 1.0),
    },
    "bcc": {
        "asymmetry": (1, 0.2, 0.6),
        "irregularity": (1, 0.2, 0.5),
        "softness": (1, 0.3, 0.6),
        "melanin": (1, 0.02, 0.20),
        "blood": (1, 0.15, 0.40),
        "blue": (0.4, 0.02, 0.10),
        "variegation": (1, 0.1, 0.4),
        "vessels": (0.9, 0.6, 1.0),
        "nests": (0.65, 0.5, 1.0),
        "crust": (0.4, 0.5, 1.0),
    },
    "bkl": {
        "asymmetry": (1, 0.1, 0.5),
        "irregularity": (1, 0.2, 0.55),
        "softness": (1, 0.0, 0.12),
        "melanin": (1, 0.35, 1.10),
        "blood": (1, 0.0, 0.12),
        "yellow": (1, 0.06, 0.26),
        "variegation": (1, 0.1, 0.4),
        "fissures": (0.7, 0.4, 0.9),
        "milia": (0.75, 0.5, 1.0),
        "comedones": (0.65, 0.5, 1.0),
    },
    "df": {
        "asymmetry": (1, 0.0, 0.2),
        "irregularity": (1, 0.05, 0.25),
        "softness": (1, 0.7, 1.0),
        "melanin": (1, 0.12, 0.40),
        "blood": (1, 0.10, 0.35),
        "variegation": (1, 0.0, 0.15),
        "ring_network": (0.8, 0.5, 1.0),
        "scar": (0.9, 0.6, 1.0),
    },
    "mel": {
        "asymmetry": (1, 0.5, 1.0),
        "irregularity": (1, 0.5, 1.0),
        "softness": (1, 0.05, 0.35),
        "melanin": (1, 0.7, 2.1),
        "blood": (1, 0.0, 0.40),
        "blue": (0.5, 0.0, 0.25),
        "variegation": (1, 0.6, 1.0),
        "atypical_network": (0.7, 0.5, 1.0),
        "irregular_dots": (0.6, 0.5, 1.0),
        "veil": (0.65, 0.6, 1.0),
        "regression": (0.4, 0.5, 1.0),
        "streaks": (0.5, 0.5, 1.0),
    },
    "nv": {
        "asymmetry": (1, 0.0, 0.15),
        "irregularity": (1, 0.05, 0.25),
        "softness": (1, 0.15, 0.45),
        "melanin": (1, 0.50, 1.30),
        "blood": (1, 0.0, 0.30),
        "variegation": (1, 0.0, 0.15),
        "centre": (1, -0.5, 0.7),
        "network": (0.7, 0.4, 1.0),
        "globules": (0.35, 0.4, 1.0),
    },
    "vasc": {
        "asymmetry": (1, 0.0, 0.3),
        "irregularity": (1, 0.05, 0.35),
        "softness": (1, 0.05, 0.20),
        "melanin": (1, 0.0, 0.08),
        "blood": (1, 0.8, 1.6),
        "blue": (0.35, 0.05, 0.50),
        "variegation": (1, 0.1, 0.4),
        "lacunae": (0.85, 0.5, 1.0),
    },
}


def draw_look(rng: np.random.Generator, dx: str, difficulty: float) -> dict[str, float]:
    """Draw one lesion's look.

    Each group of names (shape, color, texture, signs) is drawn from the table of `dx`, or, with probability
    `0.95 * difficulty ** 2`, from that of a class taken evenly from the seven: at 0 a lesion has all that its class has,
    and near 1 what can be seen says next to nothing about the class. Structures also fade, to half at difficulty 1.

    Args:
        rng: the lesion's own generator.
        dx: one of `CLASSES`.
        difficulty: 0..1.

    >>> look = draw_look(np.random.default_rng(0), "df", 0.0)
    >>> look["lacunae"], look["scar"] > 0.5
    (0.0, True)
    """
    look = dict(NEUTRAL)
    for group, names in GROUPS.items():
        borrowed = rng.random() < 0.95 * difficulty**2
        source = CLASSES[int(rng.integers(len(CLASSES)))] if borrowed else dx
        for name in names:
            chance, low, high = LOOKS[source].get(name, (0.0, 0.0, 0.0))
            there, amount = rng.random() < chance, rng.uniform(low, high)
            if there:
                look[name] = amount * (1 - 0.5 * difficulty if group in ("texture", "signs") else 1)
    return look
