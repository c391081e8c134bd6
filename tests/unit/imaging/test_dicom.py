"""DICOM: what may name a patient is refused, gray is shown as the file means it, and nothing outside the file is opened."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermalyze.config.data import DataSpec
from dermalyze.data.inspection import inspect_images
from dermalyze.data.store import ImageStore
from dermalyze.errors import MissingExtraError, UsageError
from dermalyze.imaging.decode import PREPARE_FORMATS, decode
from dermalyze.imaging.image import ImageError, PersonalDataError

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'dermalyze[dicom]'")

GREY = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16)
DECLARED = {"PatientIdentityRemoved": "YES", "codes": ["113100"]}


def dicom(pixels: np.ndarray = GREY, *, codes: list[str] | None = None, scheme: str = "DCM", **attributes: Any) -> bytes:
    """A DICOM file without anything that names a patient, with further attributes."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    dataset, meta = Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta, dataset.SOPClassUID, dataset.SOPInstanceUID = meta, SecondaryCaptureImageStorage, "1.2.3"
    dataset.Modality, dataset.PatientSex, dataset.PatientAge = "XC", "F", "050Y"
    colour = pixels.ndim == 3
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = pixels.shape[0], pixels.shape[1], 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    if codes is not None:
        items = []
        for code in codes:
            item = Dataset()
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, scheme, "a method"
            items.append(item)
        dataset.DeidentificationMethodCodeSequence = items
    for name, value in attributes.items():
        if name == "private":
            dataset.private_block(0x0009, "ACME", create=True).add_new(0x01, "LO", value)
        elif name == "nested":
            item = Dataset()
            item.ReferringPhysicianName = value
            dataset.ReferencedStudySequence = [item]
        else:
            setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def shown(data: bytes) -> np.ndarray:
    image = decode(data, formats=PREPARE_FORMATS)
    assert image.format == "DICOM"
    assert (image.pixels == image.pixels[:, :, :1]).all()
    return image.pixels[:, :, 0]


def test_grey_of_16_bits_is_scaled_by_its_range() -> None:
    image = decode(dicom(), formats=PREPARE_FORMATS)
    assert image.pixels.shape == (12, 16, 3)
    assert image.mode == "MONOCHROME2"
    assert image.notes == ("gray of more than 8 bits scaled by its range", "DICOM does not state whether text is burnt in")
    np.testing.assert_array_equal(image.pixels[:, :, 0], np.rint(GREY / 191 * 255))


def test_grey_of_8_bits_stays_as_it_is_and_monochrome1_is_inverted() -> None:
    grey = (GREY + 20).astype(np.uint8)
    np.testing.assert_array_equal(shown(dicom(grey)), grey)
    image = decode(dicom(grey, PhotometricInterpretation="MONOCHROME1", BurnedInAnnotation="NO"), formats=PREPARE_FORMATS)
    np.testing.assert_array_equal(image.pixels[:, :, 1], 255 - grey)
    assert image.notes == ("MONOCHROME1 inverted",)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", None])
def test_the_files_window_is_applied_by_the_standards_formula(function: str | None) -> None:
    """Against the pseudo-code of PS3.3 C.11.2.1.2.1, value by value."""
    values = {} if function is None else {"VOILUTFunction": function}
    image = decode(dicom(WindowCenter=[100, 9], WindowWidth=[60, 9], **values), formats=PREPARE_FORMATS)
    c, w = 100.0, 60.0

    def linear(x: float) -> float:
        if function == "LINEAR_EXACT":
            return 0.0 if x <= c - w / 2 else 1.0 if x > c + w / 2 else (x - c) / w + 0.5
        if x <= c - 0.5 - (w - 1) / 2:
            return 0.0
        return 1.0 if x > c - 0.5 + (w - 1) / 2 else (x - (c - 0.5)) / (w - 1) + 0.5

    expected = np.array([[round(255 * linear(float(x))) for x in row] for row in GREY])
    assert np.abs(image.pixels[:, :, 0].astype(int) - expected).max() <= 1  # halves may round either way
    assert "DICOM window applied" in image.notes


def test_the_modality_transform_comes_before_the_window() -> None:
    plain = shown(dicom(WindowCenter=100, WindowWidth=60))
    moved = shown(
        dicom(WindowCenter=100 * 2 - 1024 + 0.5 - 1, WindowWidth=(60 - 1) * 2 + 1, RescaleSlope=2, RescaleIntercept=-1024)
    )
    np.testing.assert_array_equal(plain, moved)
    signed = shown(dicom((GREY.astype(np.int16) - 100), RescaleSlope=1, RescaleIntercept=0))
    np.testing.assert_array_equal(signed, shown(dicom()))


def test_colour() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    image = decode(dicom(rgb), formats=PREPARE_FORMATS)
    np.testing.assert_array_equal(image.pixels, rgb)
    assert image.mode == "RGB"
    planes = dicom(np.ascontiguousarray(rgb), PlanarConfiguration=1, PixelData=rgb.transpose(2, 0, 1).tobytes())
    np.testing.assert_array_equal(decode(planes, formats=PREPARE_FORMATS).pixels, rgb)


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"PatientName": "Doe^Jane"}, "PatientName"),
        ({"PatientID": "MRN 123456"}, "PatientID"),
        ({"PatientBirthDate": "19700101"}, "PatientBirthDate"),
        ({"InstitutionName": "St. Elsewhere"}, "InstitutionName"),
        ({"ImageComments": "Jane Doe, left arm"}, "ImageComments"),
        ({"nested": "House^Gregory"}, "ReferringPhysicianName"),
        ({"private": "Doe, Jane"}, "private tags"),
        ({"PatientName": "Doe^Jane", "PatientIdentityRemoved": "YES"}, "PatientName"),
        ({"PatientName": "Doe^Jane", "codes": ["113100"]}, "PatientName"),
        ({"PatientName": "Doe^Jane", "PatientIdentityRemoved": "NO", "codes": ["113100"]}, "PatientName"),
        ({"PatientName": "Doe^Jane", "PatientIdentityRemoved": "YES", "codes": ["113101"]}, "PatientName"),
        ({"PatientName": "Doe^Jane", "PatientIdentityRemoved": "YES", "codes": ["113100"], "scheme": "99ACME"}, "PatientName"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value.replace(" ", "-"),
)
def test_what_can_name_a_patient_is_refused_and_never_repeated(attributes: dict[str, Any], named: str) -> None:
    with pytest.raises(PersonalDataError) as caught:
        decode(dicom(**attributes), formats=PREPARE_FORMATS)
    message = str(caught.value)
    assert message.startswith(f"DICOM with {named}, not stated to be de-identified")
    assert "113100" in message
    assert caught.value.exit_code == 3
    assert not any(secret in message for secret in ("Doe", "Jane", "MRN", "1970", "Elsewhere", "House"))


def test_the_basic_profile_is_believed_and_counted() -> None:
    image = decode(dicom(PatientName="Anon^7", PatientID="7", private="x", **DECLARED), formats=PREPARE_FORMATS)
    assert image.personal == ("dicom_attributes",)
    clean = decode(dicom(PatientIdentityRemoved="YES", codes=["113100", "113101"]), formats=PREPARE_FORMATS)
    assert clean.personal == ()
    assert not any("burnt" in note for note in clean.notes), "code 113101 says that the pixels were cleaned"


def test_nothing_of_the_file_goes_into_warnings_or_logs(caplog: pytest.LogCaptureFixture) -> None:
    odd = dicom(PatientName="Doe^Jane").replace(b"050Y", b"Jane").replace(b"1.2.3", b"Doe.3")
    with warnings.catch_warnings(record=True, action="always") as caught, pytest.raises(PersonalDataError):
        decode(odd, formats=PREPARE_FORMATS)
    assert not [str(warning.message) for warning in caught]
    assert not caplog.records


def test_empty_attributes_name_nobody() -> None:
    assert decode(dicom(PatientName="", PatientID=None, AccessionNumber=" "), formats=PREPARE_FORMATS).personal == ()


def test_burnt_in_text_is_refused_whatever_the_header_says() -> None:
    with pytest.raises(PersonalDataError, match="text burnt into the image"):
        decode(dicom(BurnedInAnnotation="YES", **DECLARED), formats=PREPARE_FORMATS)


def test_a_dicomdir_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset

    record = Dataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", ["..", "..", "secret"]
    dataset, meta = Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.1.3.10", "1.2.3"
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.file_meta, dataset.DirectoryRecordSequence = meta, [record]
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    decode(dicom(), formats=PREPARE_FORMATS)  # so that nothing is left to be imported

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open":
            opened.append(str(arguments[0]))

    watching, opened = [True], []
    sys.addaudithook(refuse)
    try:
        with pytest.raises(ImageError, match=r"a DICOMDIR .* not an image"):
            decode(buffer.getvalue(), formats=PREPARE_FORMATS)
    finally:
        watching.clear()
    assert opened == []


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"NumberOfFrames": 2}, "several frames"),
        ({"PhotometricInterpretation": "XYB"}, "pixel layout XYB is not read"),
        ({"Rows": 30_000, "Columns": 30_000}, "more than 64000000 pixels"),
        ({"Rows": 0}, "no pixels"),
        ({"PixelData": b"\0\0"}, "damaged DICOM file"),
    ],
    ids=["frames", "layout", "large", "empty", "short"],
)
def test_what_cannot_be_shown_is_refused(attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(dicom(**attributes), formats=PREPARE_FORMATS)


def test_damaged_files_are_image_errors() -> None:
    whole = dicom()
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole[: rng.integers(140, len(whole))])
        broken[rng.integers(132, len(broken))] = rng.integers(256)
        try:
            assert decode(bytes(broken), formats=PREPARE_FORMATS).pixels.dtype == np.uint8
        except (ImageError, PersonalDataError):
            continue


def test_prepare_stops_at_a_file_that_can_name_a_patient_and_names_the_row(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom())
    (tmp_path / "b.dcm").write_bytes(dicom(PatientName="Doe^Jane"))
    store = ImageStore.open(DataSpec(path=str(tmp_path)))
    assert inspect_images(store, ["a.dcm"], workers=0)[0].format == "DICOM"
    for workers in (0, 1):
        with pytest.raises(PersonalDataError, match=r"^b\.dcm: DICOM with PatientName, not stated"):
            inspect_images(store, ["a.dcm", "b.dcm"], workers=workers)


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom()
    (tmp_path / "a.dcm").write_bytes(data)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(
        MissingExtraError, match=r"reading DICOM files needs an optional part: pip install 'dermalyze\[dicom\]'"
    ):
        decode(data, formats=PREPARE_FORMATS)
    with pytest.raises(UsageError, match=r"dermalyze\[dicom\]"):
        inspect_images(ImageStore.open(DataSpec(path=str(tmp_path))), ["a.dcm"], workers=0)


@pytest.mark.real
def test_two_real_films(shared: Path) -> None:
    """The same chest film as MONOCHROME2 and MONOCHROME1: refused as they are, each other's negative when declared clean."""
    folder = shared / "data" / "chest_xray"
    files = sorted(folder.glob("*.dcm"))
    if len(files) != 2:
        pytest.skip(f"two DICOM films are needed in {folder.name}, found {len(files)}")
    seen = {}
    for file in files:
        with pytest.raises(PersonalDataError, match="DICOM with PatientName, PatientID, not stated to be de-identified"):
            decode(file.read_bytes(), formats=PREPARE_FORMATS)
        dataset = pydicom.dcmread(file)
        item = pydicom.Dataset()
        item.CodeValue, item.CodingSchemeDesignator = "113100", "DCM"
        dataset.PatientIdentityRemoved, dataset.DeidentificationMethodCodeSequence = "YES", [item]
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        seen[dataset.PhotometricInterpretation] = decode(buffer.getvalue(), formats=PREPARE_FORMATS).pixels
    assert seen["MONOCHROME2"].shape == (1024, 1024, 3)
    assert seen["MONOCHROME2"].std() > 20
    np.testing.assert_array_equal(seen["MONOCHROME1"], 255 - seen["MONOCHROME2"])
