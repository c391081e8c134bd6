"""Which columns of a manifest may go into a model, and which never."""

from __future__ import annotations

GIVEAWAY_COLUMNS = ("dx_type", "diagnosis_confirm_type", "biopsed", "concomitant_biopsy", "seven_point_score")
_GIVEAWAY_STARTS = ("mel_", "diagnosis", "benign_malignant")
SECOND_COLUMNS = ("second_path", "second_sha256", "second_pixel_sha256")
"""Columns of a manifest whose cases have second images; other manifests lack them."""
OWN_COLUMNS = (
    "image_id", "path", "sha256", "pixel_sha256", "width", "height", "mode", "patient_id", "lesion_id", "cluster_id", "label",
    "mask_path", "split", "quarantine_reason", "group", *SECOND_COLUMNS,
)  # fmt: skip
"""Columns that name, describe or divide the images: an identifier or the label itself."""


def is_giveaway(column: str) -> bool:
    """Whether a user's column reveals the label; such a column is never a model input.

    >>> is_giveaway("dx_type"), is_giveaway("mel_thick_mm"), is_giveaway("diagnosis_2"), is_giveaway("age")
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
