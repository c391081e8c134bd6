"""The page of an audit: all that was found stands on it, nothing is loaded from elsewhere, nobody's text becomes markup."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.data import DataSpec
from dermalyze.core.result import DISCLAIMER
from dermalyze.data.store import ImageStore
from dermalyze.data.thumbnails import Gallery, GalleryImage
from dermalyze.report import audit
from dermalyze.report.audit import LONGEST_TABLE, PICTURE_PX, _thumbnail, audit_page, tables_in

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"


def result(**more):
    findings = [
        {"kind": "a", "severity": "refuse", "count": 1, "detail": f"refused because of {HOSTILE}", "examples": [HOSTILE]},
        {"kind": "b", "severity": "info", "count": 2, "detail": "noted; do this", "examples": []},
    ]
    return {
        "images": 1234,
        "quarantined": 5,
        "summary": {"refuse": 1, "warn": 0, "info": 1},
        "findings": findings,
        "tables": {"one": {"title": HOSTILE, "explanation": HOSTILE, "columns": ["class", HOSTILE], "rows": [[HOSTILE, 1.25]]}},
        **more,
    }


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x013B] = "Dr. Secret"
    for k in range(4):
        image = Image.fromarray(rng.integers(0, 256, (60, 400, 3), np.uint8))
        image.save(tmp_path / f"secret-{k}.jpg", exif=exif, comment=b"Secret patient")
    return ImageStore.open(DataSpec(path=str(tmp_path)))


PATHS = {f"i{k}": f"secret-{k}.jpg" for k in range(4)}
PAIRS = Gallery(
    "pairs", "Pairs & more", HOSTILE, tuple((GalleryImage(f"i{k}", HOSTILE), GalleryImage(f"i{k + 1}", "b")) for k in range(3))
)


def test_every_finding_and_figure_stands_on_the_page(store):
    page = audit_page(result(), [PAIRS], store, PATHS)
    assert "1,234" in page
    assert "noted; do this" in page
    assert page.count("refused because of") == 1
    assert page.count(DISCLAIMER) == 2
    assert page.count("data:image/jpeg;base64,") == 6
    assert ">1.25<" in page


def test_the_page_stands_alone_and_text_stays_text(store, tmp_path):
    page = audit_page(result(), [PAIRS], store, PATHS)
    assert "http:" not in page
    assert "https:" not in page
    assert "secret" not in page
    assert str(tmp_path) not in page
    tags = set(re.findall(r"<([a-z0-9]+)[\s>]", page))
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base", "svg"}
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', page))
    assert all(source.startswith("data:image/jpeg;base64,") for source in re.findall(r'<img[^>]* src="([^"]*)"', page))
    assert "<img src=x" not in page
    assert "7*7" in page
    assert "onerror=" not in re.sub(r"&lt;img src=x onerror=", "", page)


def test_thumbnails_are_small_and_carry_no_metadata(store):
    data = base64.b64decode(_thumbnail(store, "secret-0.jpg"))
    with Image.open(io.BytesIO(data)) as image:
        assert max(image.size) == PICTURE_PX
        assert not image.getexif()
        assert "comment" not in image.info
    assert b"Secret" not in data


def test_pictures_that_are_gone_are_said(store):
    page = audit_page(result(), [PAIRS], store, {})
    assert page.count("cannot be read") == 6
    assert audit_page(result(), [PAIRS], None, PATHS) == page


def test_the_page_stays_small(store, monkeypatch):
    monkeypatch.setattr(audit, "PICTURES_BYTES", 1000)
    page = audit_page(result(), [PAIRS, PAIRS], store, PATHS)
    assert page.count("data:image/jpeg;base64,") == 4  # one row of each gallery
    assert page.count("2 more row(s) are not shown") == 2


def test_nothing_found():
    page = audit_page(
        {"images": 0, "quarantined": 0, "summary": dict.fromkeys(("refuse", "warn", "info"), 0), "findings": []}, [], None, {}
    )
    assert "No findings." in page


def test_tables_of_whatever_a_result_holds():
    nested = {
        "pairs": 3,
        "largest": None,
        "by_class": [{"class": "nv", "n": 12000}, {"class": "mel", "share": 0.5}],
        "empty": [],
    }
    tables = list(tables_in("near duplicates", nested))
    assert [table["title"] for table in tables] == ["Near duplicates", "Near duplicates: by class"]
    assert tables[0]["rows"] == [["pairs", "3"], ["largest", "–"]]
    assert tables[1]["columns"] == ["class", "n", "share"]
    assert tables[1]["rows"] == [["nv", "12,000", "–"], ["mel", "–", "0.5"]]
    assert tables[1]["numeric"] == [1, 2]
    (long,) = tables_in("x", [{"a": k} for k in range(LONGEST_TABLE + 7)])
    assert (len(long["rows"]), long["more"]) == (LONGEST_TABLE, 7)
    assert list(tables_in("x", None)) == list(tables_in("x", {})) == list(tables_in("x", [])) == []


def test_the_same_bytes_again(store):
    assert audit_page(result(), [PAIRS], store, PATHS) == audit_page(result(), [PAIRS], store, PATHS)
