"""Which columns of a manifest may go into a model, and which never."""

from __future__ import annotations

GIVEAWAY_COLUMNS = (
    "dx_type", "diagnosis_confirm_type", "biopsed", "concomitant_biopsy", "seven_point_score", "management", "target",
    "malignant", "malignancy", "melanocytic", "nevus_type", "histology", "disease", "tbp_lv_nevi_confidence",
    "invasion_thickness_interval",
)  # fmt: skip
"""Of the ISIC archive and its challenges, PAD-UFES-20, Derm7pt, DDI and MILK10k: the diagnosis, what follows from it, how it
was found, and what another network made of the image."""
_GIVEAWAY_STARTS = ("mel_", "diagnosis", "benign_malignant", "iddx_", "tbp_lv_dnn_", "three_partition", "nine_partition")
OPTIONAL_IMAGES = ("image_2",)
"""Names of the further images that a sample may have beside `image`."""


def image_columns(name: str) -> tuple[str, str, str]:
    """Columns of a manifest for an image of its samples: path, SHA-256 of the bytes, and of the decoded pixels.

    >>> image_columns("image"), image_columns("image_2")
    (('path', 'sha256', 'pixel_sha256'), ('image_2_path', 'image_2_sha256', 'image_2_pixel_sha256'))
    """
    start = "" if name == "image" else f"{name}_"
    return f"{start}path", f"{start}sha256", f"{start}pixel_sha256"


OPTIONAL_COLUMNS = tuple(column for name in OPTIONAL_IMAGES for column in image_columns(name))
"""Those of the optional images; a manifest without such images lacks them."""
OWN_COLUMNS = (
    "image_id", "path", "sha256", "pixel_sha256", "width", "height", "mode", "patient_id", "lesion_id", "cluster_id", "label",
    "mask_path", "split", "quarantine_reason", "group", *OPTIONAL_COLUMNS,
)  # fmt: skip
"""Columns that name, describe or divide the images: an identifier or the label itself."""


def is_giveaway(column: str) -> bool:
    """Whether a user's column reveals the label; such a column is never a model input.

    >>> is_giveaway("dx_type"), is_giveaway("mel_thick_mm"), is_giveaway("iddx_2"), is_giveaway("age")
    (True, True, True, False)
    """
    return column.lower() in GIVEAWAY_COLUMNS or column.lower().startswith(_GIVEAWAY_STARTS)


def why_no_input(column: str) -> str | None:
    """Why a column may not be a model's input; None where it may.

    >>> why_no_input("site"), why_no_input("label")
    (None, 'names, describes or divides the images')
    """
    if is_giveaway(column):
        return "reveals the label"
    return "names, describes or divides the images" if column.lower() in OWN_COLUMNS else None
