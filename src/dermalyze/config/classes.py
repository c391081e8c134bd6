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


def describe(name: str) -> str:
    """A class's description, or its name where none is known.

    Tschandl et al. 2018, doi:10.1038/sdata.2018.161

    >>> describe("nv"), describe("ringworm")
    ('Melanocytic nevi', 'ringworm')
    """
    return HAM10000_CLASSES.get(name, name)
