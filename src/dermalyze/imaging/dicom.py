"""DICOM files to RGB pixels, for `prepare`: none that may name a patient, in its header or in its pixels. Needs pydicom."""

# Shapes: H height, W width.

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalyze.errors import MissingExtraError
from dermalyze.imaging.image import Decoded, ImageError, PersonalDataError, check_size

BASIC_PROFILE = "113100"
"""Basic Application Confidentiality Profile, DICOM PS3.16 CID 7050; 113101 (Clean Pixel Data) and others are its options."""
CLEAN_PIXELS = "113101"
IDENTIFYING = (
    "PatientName", "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthDate",
    "PatientBirthName", "PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers", "PatientComments",
    "AdditionalPatientHistory", "MilitaryRank", "Occupation", "MedicalRecordLocator", "AccessionNumber", "StudyID",
    "InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "PerformingPhysicianName", "PhysiciansOfRecord",
    "OperatorsName", "RequestingPhysician", "ResponsiblePerson", "StationName", "DeviceSerialNumber", "ImageComments",
)  # fmt: skip
"""Attributes of PS3.15 table E.1-1 that name a person or a place, or are free text; private tags count as well."""
_DICOMDIR = "1.2.840.10008.1.3.10"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR")


def decode_dicom(data: bytes, *, max_pixels: int) -> Decoded:
    """Decode one single-frame DICOM image to 8-bit RGB.

    Gray values go through the modality transform, then the file's first window (PS3.3 C.11.2), or their own range where it has
    none; MONOCHROME1 is inverted, so that more is brighter. Nothing outside the file is opened: a DICOMDIR is not followed.

    Args:
        data: the file.
        max_pixels: largest H * W.

    Raises:
        MissingExtraError: pydicom is not installed.
        PersonalDataError: attributes that can name a patient, without a statement that the file was de-identified by the basic
            profile (PS3.15 E: PatientIdentityRemoved YES and code 113100), or text burnt into the pixels.
        ImageError: damaged, several frames, no image, a compression or pixel layout that is not read.
    """
    try:
        import pydicom
    except ImportError:
        raise MissingExtraError("reading DICOM files", "dicom") from None
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings repeat what is in the file
    try:
        dataset: Any = pydicom.dcmread(io.BytesIO(data))
        directory = _text(dataset.file_meta, "MediaStorageSOPClassUID") == _DICOMDIR or "DirectoryRecordSequence" in dataset
        problem = why_personal(dataset)
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise ImageError("damaged DICOM file") from error
    if directory:
        raise ImageError("a DICOMDIR (a list of files), not an image; give the folder of its images")
    if problem is not None:
        raise PersonalDataError(problem)
    if "PixelData" not in dataset:
        raise ImageError("a DICOM file without an image")
    check_size(int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0), max_pixels)
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise ImageError("several frames (a DICOM series); save one frame")
    photometric = _text(dataset, "PhotometricInterpretation")
    notes: list[str] = []
    try:
        if photometric in _GREY:
            pixels = _grey(dataset, notes)
        elif photometric in _COLOUR:
            pixels = _colour(dataset, photometric)
        else:
            raise ImageError(f"DICOM pixel layout {photometric or '(none)'} is not read; save as MONOCHROME2 or RGB")
    except (ImageError, MemoryError):
        raise
    except (NotImplementedError, RuntimeError) as error:
        raise ImageError(
            "DICOM compressed in a way that is not read; save it uncompressed (Explicit VR Little Endian)"
        ) from error
    except Exception as error:
        raise ImageError("damaged DICOM file") from error
    if CLEAN_PIXELS not in _codes(dataset) and not _text(dataset, "BurnedInAnnotation"):
        notes.append("DICOM does not state whether text is burnt in")
    personal = ("dicom_attributes",) if identifying(dataset) else ()
    return Decoded(Image.fromarray(np.ascontiguousarray(pixels)), photometric, "DICOM", tuple(notes), personal)


def why_personal(dataset: Any) -> str | None:
    """Why a file may not be used: it can name a patient. None where it cannot, or says that it was de-identified.

    Args:
        dataset: as pydicom reads it.

    Returns:
        one line with the names of the attributes, never their content.
    """
    if _text(dataset, "BurnedInAnnotation").upper() == "YES":
        return "DICOM with text burnt into the image (BurnedInAnnotation YES); blank the text and save a clean copy"
    found = identifying(dataset)
    declared = _text(dataset, "PatientIdentityRemoved").upper() == "YES" and BASIC_PROFILE in _codes(dataset)
    if not found or declared:
        return None
    more = f" and {len(found) - 4} others" if len(found) > 4 else ""
    return (
        f"DICOM with {', '.join(found[:4])}{more}, not stated to be de-identified (PatientIdentityRemoved YES and "
        "DeidentificationMethodCodeSequence 113100, DICOM PS3.15 E); de-identify it by that profile, or convert it to PNG"
    )


def identifying(dataset: Any) -> list[str]:
    """Names of the filled attributes that can name a person, at any depth; private tags as "private tags"."""
    found: dict[str, None] = {}
    private = False
    for element in dataset.iterall():
        private |= element.tag.is_private
        if element.keyword in IDENTIFYING and str(element.value or "").strip():
            found[element.keyword] = None
    return [*found, *(["private tags"] if private else [])]


def _codes(dataset: Any) -> set[str]:
    """Codes of the de-identification method, in DICOM's own coding scheme."""
    items = dataset.get("DeidentificationMethodCodeSequence") or []
    return {_text(item, "CodeValue") for item in items if _text(item, "CodingSchemeDesignator") == "DCM"}


def _text(dataset: Any, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def _grey(dataset: Any, notes: list[str]) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
    from pydicom.pixels.utils import pixel_array

    values_HW = apply_modality_lut(pixel_array(dataset), dataset)
    if dataset.get("VOILUTSequence"):
        values_HW = apply_voi_lut(values_HW, dataset, prefer_lut=True)
        low, high = float(values_HW.min()), float(values_HW.max())
        notes.append("DICOM table of gray values applied")
    elif (window := _window(dataset)) is not None:
        low, high = window
        notes.append("DICOM window applied")
    elif int(dataset.BitsStored) <= 8 and "RescaleSlope" not in dataset:
        low, high = 0.0, float(2 ** int(dataset.BitsStored) - 1)
    else:
        low, high = float(values_HW.min()), float(values_HW.max())
        notes.append("gray of more than 8 bits scaled by its range")
    share_HW = np.clip((np.asarray(values_HW, dtype=np.float64) - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    if _text(dataset, "PhotometricInterpretation") == "MONOCHROME1":
        share_HW = 1.0 - share_HW
        notes.append("MONOCHROME1 inverted")
    grey = np.rint(share_HW * 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _window(dataset: Any) -> tuple[float, float] | None:
    """Values that become black and white by the file's first window; None where it has none.

    LINEAR is c - 0.5 -+ (w - 1) / 2, LINEAR_EXACT c -+ w / 2 (PS3.3 C.11.2.1.2, C.11.2.1.3); a SIGMOID window is read as exact.
    """
    centre, width = (np.atleast_1d(dataset.get(key)) for key in ("WindowCenter", "WindowWidth"))
    if centre[0] is None or width[0] is None:
        return None
    c, w = float(centre[0]), float(width[0])
    if (_text(dataset, "VOILUTFunction") or "LINEAR") == "LINEAR":
        c, w = c - 0.5, w - 1
    return (c - w / 2, c + w / 2) if w > 0 else None


def _colour(dataset: Any, photometric: str) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    if photometric == "PALETTE COLOR":
        wide = np.asarray(apply_color_lut(pixel_array(dataset), dataset))
        return np.asarray(wide >> 8 if wide.dtype == np.uint16 else wide, dtype=np.uint8)
    if int(dataset.BitsAllocated) != 8:
        raise ImageError("DICOM color of more than 8 bits is not read; save 8 bits per channel")
    return np.asarray(pixel_array(dataset), dtype=np.uint8)  # YBR is RGB by now
