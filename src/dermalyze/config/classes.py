"""What the class names of known data sets stand for."""

from __future__ import annotations

HAM10000_CLASSES = {
    "akiec": "Actinic keratoses and intraepithelial carcinoma",
    "bcc": "Basal cell carcinoma",
    "bkl": "Benign keratosis-like lesions",
    "df": "Dermatofibroma",
    "mel": "Melanoma",
    "nv": "Melanocytic nevi",
    "vasc": "Vascular lesions",
}

LABEL_MAPS: dict[str, dict[str, str | None]] = {
    "ham10000": {
        "AK": "akiec", "ACK": "akiec", "AKIEC": "akiec", "SCC": "akiec", "BCC": "bcc", "BKL": "bkl", "SEK": "bkl", "DF": "df",
        "MEL": "mel", "NV": "nv", "NEV": "nv", "VASC": "vasc",
    },
    "derm7pt": {
        "basal cell carcinoma": "BCC",
        **dict.fromkeys(
            ("nevus", "blue nevus", "clark nevus", "combined nevus", "congenital nevus", "dermal nevus", "recurrent nevus",
             "reed or spitz nevus"), "NEV",
        ),
        **dict.fromkeys(
            ("melanoma", "melanoma (in situ)", "melanoma (less than 0.76 mm)", "melanoma (0.76 to 1.5 mm)",
             "melanoma (more than 1.5 mm)", "melanoma metastasis"), "MEL",
        ),
        **dict.fromkeys(("dermatofibroma", "lentigo", "melanosis", "miscellaneous", "vascular lesion"), "MISC"),
        "seborrheic keratosis": "SK",
    },
}  # fmt: skip
"""Label maps by name; a label that a map does not name keeps its own name.

ham10000: the labels of ISIC 2018, ISIC 2019, BCN20000 and PAD-UFES-20 to the seven classes of HAM10000. Actinic keratosis
    (AK, ACK) and squamous cell carcinoma (SCC) both go to akiec, which in HAM10000 holds actinic keratoses and Bowen's
    disease but no invasive carcinoma: this is the usual map, and it makes akiec wider. Seborrheic keratosis (SEK) goes to
    bkl, nevus (NEV) to nv. The label UNK of ISIC 2019 has no class and stays unmapped.
derm7pt: the twenty diagnoses of Derm7pt to its five (Kawahara et al. 2019, doi:10.1109/JBHI.2018.2824327).
"""

LABEL_MAP_CLASSES = {"ham10000": tuple(HAM10000_CLASSES), "derm7pt": ("BCC", "MEL", "MISC", "NEV", "SK")}
"""The classes that each of `LABEL_MAPS` leads to, in order."""


def describe(name: str) -> str:
    """A class's description, or its name where none is known.

    Tschandl et al. 2018, doi:10.1038/sdata.2018.161

    >>> describe("nv"), describe("ringworm")
    ('Melanocytic nevi', 'ringworm')
    """
    return HAM10000_CLASSES.get(name, name)
