"""The plan of an invented set: how many lesions of each class, which patients, and which file each photograph becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dermalyze.data.synthetic.class_appearance import CLASSES

Balance = Literal["ham10000", "even"]

METADATA = "HAM10000_metadata.csv"
IMAGE_FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MASK_FOLDER = "HAM10000_segmentations_lesion_tschandl"

FIRST_NUMBER, NUMBERS = 9_000_000, 1_000_000  # a set's numbers are a stretch of these, which its seed chooses

# Counted in HAM10000_metadata.csv, one row per lesion (7470).
HAM10000_LESIONS = {"akiec": 228, "bcc": 327, "bkl": 727, "df": 73, "mel": 614, "nv": 5403, "vasc": 98}
MEAN_AGE = {"akiec": 66.6, "bcc": 66.9, "bkl": 64.4, "df": 52.7, "mel": 61.3, "nv": 47.3, "vasc": 52.5}
DX_TYPES = {
    "akiec": {"histo": 1.0},
    "bcc": {"histo": 1.0},
    "bkl": {"histo": 0.67, "consensus": 0.28, "confocal": 0.05},
    "df": {"consensus": 0.6, "histo": 0.4},
    "mel": {"histo": 1.0},
    "nv": {"follow_up": 0.69, "histo": 0.25, "consensus": 0.06},
    "vasc": {"consensus": 0.66, "histo": 0.34},
}
# Shares of the sites over all lesions, and the sites that come twice as often in a class.
SITES = {
    "back": 0.22,
    "lower extremity": 0.21,
    "trunk": 0.14,
    "upper extremity": 0.11,
    "abdomen": 0.10,
    "face": 0.08,
    "chest": 0.04,
    "foot": 0.03,
    "neck": 0.02,
    "scalp": 0.013,
    "hand": 0.01,
    "ear": 0.006,
    "genital": 0.005,
    "acral": 0.001,
    "unknown": 0.025,
}
FREQUENT_SITES = {
    "akiec": ("face", "scalp", "hand"),
    "bcc": ("face", "back", "ear"),
    "bkl": ("face", "back", "scalp"),
    "df": ("lower extremity", "upper extremity"),
    "mel": ("back", "upper extremity"),
    "nv": ("trunk", "abdomen", "foot"),
    "vasc": ("trunk", "abdomen"),
}


@dataclass(frozen=True)
class Row:
    """One line of the metadata; the fields are HAM10000's columns, in their order."""

    lesion_id: str
    image_id: str
    dx: str
    dx_type: str
    age: str
    sex: str
    localization: str


@dataclass(frozen=True)
class LesionPlan:
    """All that painting one lesion needs: its number, its class, and for each photograph (image, mask) below the root."""

    index: int
    dx: str
    files: tuple[tuple[str, str], ...]


def share_out(lesions: int, balance: Balance) -> dict[str, int]:
    """Lesions of each class: even, or by HAM10000's shares with at least 5 (fewer in a set under 35) of each.

    >>> share_out(400, "ham10000")
    {'akiec': 12, 'bcc': 17, 'bkl': 39, 'df': 5, 'mel': 33, 'nv': 289, 'vasc': 5}
    """
    least = min(5, lesions // len(CLASSES))
    weights = HAM10000_LESIONS if balance == "ham10000" else dict.fromkeys(CLASSES, 1)
    total = sum(weights.values())
    counts = dict.fromkeys(CLASSES, least)
    for _ in range(lesions - sum(counts.values())):
        counts[max(CLASSES, key=lambda dx: lesions * weights[dx] / total - counts[dx])] += 1
    return counts


def plan_set(lesions: int, seed: int, balance: Balance, images_per_lesion: float) -> tuple[list[Row], list[LesionPlan]]:
    """Draw classes, patients and numbers, so that neither the number of an image nor its place tells the class."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    labels = [dx for dx, count in share_out(lesions, balance).items() for _ in range(count)]
    labels = [labels[i] for i in rng.permutation(lesions)]
    shots = 1 + rng.binomial(3, (images_per_lesion - 1) / 3, lesions)
    numbers = iter(rng.permutation(int(shots.sum())))
    rows, plans = [], []
    # Sets of two seeds hold different lesions and must not share ids: `evaluate --on` would take them for the same.
    drawn = int(np.random.SeedSequence(seed, spawn_key=(9,)).generate_state(1)[0])
    first = FIRST_NUMBER + drawn % (NUMBERS - int(shots.sum()))
    for index, dx in enumerate(labels):
        patient = draw_patient(rng, dx)
        files = []
        for number in sorted(int(next(numbers)) for _ in range(shots[index])):
            name = f"ISIC_{first + number}"
            rows.append(Row(f"HAM_{first + index}", name, dx, *patient))
            part = IMAGE_FOLDERS[0 if 2 * number < shots.sum() else 1]
            files.append((f"{part}/{name}.jpg", f"{MASK_FOLDER}/{name}_segmentation.png"))
        plans.append(LesionPlan(index, dx, tuple(files)))
    return rows, plans


def draw_patient(rng: np.random.Generator, dx: str) -> tuple[str, str, str, str]:
    """Draw dx_type, age, sex and localization, the last three leaning only a little towards what the class has."""
    age = 5 * round(float(np.clip(rng.normal(0.5 * (52 + MEAN_AGE[dx]), 16), 0, 85)) / 5)
    known = rng.random() >= 0.03
    sex = str(rng.choice(["male", "female", "unknown"], p=[0.53, 0.45, 0.02]))
    weights = np.array([share * (2 if site in FREQUENT_SITES[dx] else 1) for site, share in SITES.items()])
    site = str(rng.choice(list(SITES), p=weights / weights.sum()))
    how = str(rng.choice(list(DX_TYPES[dx]), p=list(DX_TYPES[dx].values())))
    return how, f"{age:.1f}" if known else "", sex, site
