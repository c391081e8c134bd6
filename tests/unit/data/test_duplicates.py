from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from dermalyze.audit.checks import near_duplicates
from dermalyze.data.duplicates import Duplicates, Pair, clusters_of, fingerprint, galleries, join_clusters, joined, recorded
from dermalyze.data.grouping import groups
from dermalyze.data.manifest import read_manifest
from dermalyze.data.thumbnails import GalleryImage


def frame(n: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "path": [f"{k}.jpg" for k in range(n)],
            "pixel_sha256": [f"p{k}" for k in range(n)],
            "label": ["mel", "nv"] * (n // 2),
            "lesion_id": [f"L{k // 2}" for k in range(n)],
            "source": ["a", "a", "a", None, "b", "b"][:n],
        }
    )


def found(*pairs: Pair, of: pd.DataFrame | None = None) -> Duplicates:
    return Duplicates(fingerprint(frame() if of is None else of), pairs, clusters_of(pairs), 6, 0)


CROSS = Pair("i0", "i2", 0.9, "none")
LABELS = Pair("i0", "i1", 0.8, "half turn")
SOURCES = Pair("i2", "i4", 0.7, "none")


def test_findings_name_pairs_of_two_labels_lesions_and_sources() -> None:
    by_kind = {finding.kind: finding for finding in near_duplicates(frame(), found(CROSS, LABELS, SOURCES))}
    assert by_kind["near_duplicates"].detail == (
        "3 pair(s) of near-duplicates in 1 cluster(s), the largest of 4 images; each cluster stays in one split"
    )
    assert by_kind["duplicate_labels"].examples == ("i0 i1",)
    assert by_kind["duplicate_lesions"].examples == ("i0 i2", "i2 i4")
    assert by_kind["duplicate_sources"].examples == ("i2 i4",)
    assert {finding.severity for kind, finding in by_kind.items() if kind != "near_duplicates"} == {"warn"}
    assert near_duplicates(frame(), found()) == []


def test_one_huge_cluster_is_a_warning() -> None:
    many = pd.DataFrame({"image_id": [f"i{k:02}" for k in range(30)], "label": "nv", "path": "x", "pixel_sha256": "p"})
    chain = [Pair(f"i{k:02}", f"i{k + 1:02}", 0.7, "none") for k in range(24)]
    kinds = {finding.kind: finding.count for finding in near_duplicates(many, found(*chain, of=many))}
    assert kinds["large_cluster"] == 25
    assert "large_cluster" not in {finding.kind for finding in near_duplicates(many, found(*chain[:10], of=many))}


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({}, 24),  # twelve thumbnails beside their originals, of forty images
        ({"lesion_id": [f"L{k % 20}" for k in range(40)]}, None),  # photographs of one lesion
        ({"label": ["mel"] * 20 + ["nv"] * 20}, None),  # two labels: another finding
    ],
)
def test_many_near_duplicates_within_a_class_are_a_warning(change: dict[str, Any], count: int | None) -> None:
    many = pd.DataFrame({"image_id": [f"i{k:02}" for k in range(40)], "label": "nv", "path": "x", "pixel_sha256": "p"})
    many = many.assign(**change)
    pairs = [Pair(f"i{k:02}", f"i{k + 20:02}", 0.9, "none") for k in range(12)]
    kinds = {finding.kind: finding for finding in near_duplicates(many, found(*pairs, of=many))}
    assert (kinds["copied_class"].count if "copied_class" in kinds else None) == count
    if count is not None:
        assert kinds["copied_class"].severity == "warn"
        assert kinds["copied_class"].detail.startswith("24 of 40 images of class 'nv' are near-duplicates of another without")
        assert not [f for f in near_duplicates(many, found(*pairs[:4], of=many)) if f.kind == "copied_class"]


def test_galleries_show_the_most_alike_first_and_name_no_file() -> None:
    shown = {gallery.kind: gallery for gallery in galleries(frame(), found(SOURCES, LABELS, CROSS))}
    assert shown["duplicate_labels"].rows == (
        (GalleryImage("i0", "mel"), GalleryImage("i1", "nv; correlation 0.80; half turn")),
    )
    assert [row[0].image_id for row in shown["duplicate_lesions"].rows] == ["i0", "i2"]
    assert galleries(frame(), found()) == ()


def test_clusters_are_joined_with_a_column_that_is_there_and_with_groups() -> None:
    rows = frame().assign(cluster_id=[None, None, "k", "k", None, "alone"], lesion_id=None)
    clusters = joined(rows, [CROSS])
    assert clusters.tolist() == ["i0", None, "i0", "i0", None, None]
    assert joined(rows.assign(cluster_id=clusters), [CROSS]).tolist() == clusters.tolist()
    assert groups(rows.assign(cluster_id=clusters, pixel_sha256=None)).tolist() == ["i0", "i1", "i0", "i0", "i4", "i5"]


def test_the_manifest_is_written_once_and_a_split_of_another_one_falls(prepared: Any) -> None:
    run, _ = prepared(frame())
    run.splits_dir.mkdir()
    run.certificate_path.write_text("{}")
    before = run.manifest_hash()
    join_clusters(run, read_manifest(run), found())
    assert run.manifest_hash() == before
    assert run.certificate_path.exists()
    join_clusters(run, read_manifest(run), found(CROSS))
    assert read_manifest(run)["cluster_id"].fillna("-").tolist() == ["i0", "-", "i0", "-", "-", "-"]
    assert not run.certificate_path.exists()
    after = run.manifest_path.read_bytes()
    join_clusters(run, read_manifest(run), found(CROSS))
    assert run.manifest_path.read_bytes() == after


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"duplicates": 3}'], ids=["empty", "cut", "list", "number"])
def test_a_record_is_read_back_or_made_anew(prepared: Any, damage: str) -> None:
    run, _ = prepared(frame())
    assert recorded(run, frame()) is None
    written = found(CROSS, LABELS)
    run.audit_path.write_text(json.dumps({"duplicates": written.as_dict()}))
    assert recorded(run, frame()) == written
    assert recorded(run, frame().assign(pixel_sha256="other")) is None
    assert recorded(run, frame(4)) is None
    run.audit_path.write_text(json.dumps({"duplicates": {**written.as_dict(), "list": [{"first": "i0"}]}}))
    assert recorded(run, frame()) is None
    run.audit_path.write_text(damage)
    assert recorded(run, frame()) is None
