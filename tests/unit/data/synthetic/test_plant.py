from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermalyze.data.synthetic.plant import INK_RGB, PLANTS, read_rows
from dermalyze.data.synthetic.synth import SynthResult, synthesize
from dermalyze.errors import UsageError


def made(out: Path, plant: str | None, seed: int = 3) -> SynthResult:
    return synthesize(out, lesions=50, seed=seed, size_px=(48, 64), balance="even", plant=plant, workers=1)


def prints(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, SynthResult]:
    """The same set without a defect and with each."""
    folder = tmp_path_factory.mktemp("planted")
    return {kind: made(folder / str(kind), kind) for kind in (None, "label-noise", "shortcut")}


@pytest.mark.parametrize("kind", ["label-noise", "shortcut"])
def test_the_truth_is_written_and_the_same_seed_gives_the_same_bytes(
    kind: str, sets: dict[str | None, SynthResult], tmp_path: Path
) -> None:
    result = sets[kind]
    assert result.planted is not None
    assert json.loads((result.root / "planted.json").read_text()) == {
        "kind": kind,
        "image_ids": list(result.planted.image_ids),
        "made_from": {},
    }
    assert result.as_dict()["planted"] == {"kind": kind, "images": len(result.planted.image_ids)}
    assert f"planted {kind} in " in result.lines()[-1]
    assert prints(made(tmp_path / "again", kind).root) == prints(result.root)


def test_label_noise_changes_one_column_of_whole_lesions(sets: dict[str | None, SynthResult]) -> None:
    before, after = (read_rows(sets[kind].root) for kind in (None, "label-noise"))
    assert sets["label-noise"].planted is not None
    changed = [a for b, a in zip(before, after, strict=True) if b["dx"] != a["dx"]]
    assert sorted(row["image_id"] for row in changed) == list(sets["label-noise"].planted.image_ids)
    lesions = {row["lesion_id"] for row in changed}
    assert len(lesions) == 4, "8 % of 50"
    assert {row["image_id"] for row in after if row["lesion_id"] in lesions} == {row["image_id"] for row in changed}
    assert [{**row, "dx": ""} for row in before] == [{**row, "dx": ""} for row in after]
    mine, theirs = prints(sets["label-noise"].root), prints(sets[None].root)
    assert {name for name in mine if mine[name] != theirs.get(name)} == {"planted.json", "HAM10000_metadata.csv"}


def test_a_shortcut_changes_the_corners_of_one_class(sets: dict[str | None, SynthResult]) -> None:
    result, clean = sets["shortcut"], sets[None]
    assert result.planted is not None
    rows = read_rows(result.root)
    assert rows == read_rows(clean.root)
    assert list(result.planted.image_ids) == sorted(row["image_id"] for row in rows if row["dx"] == "mel")
    mine, theirs = prints(result.root), prints(clean.root)
    changed = {name for name in mine if mine[name] != theirs.get(name)} - {"planted.json"}
    assert {Path(name).stem for name in changed} == set(result.planted.image_ids)
    for name in changed:
        after, before = (np.asarray(Image.open(root / name).convert("RGB")).astype(int) for root in (result.root, clean.root))
        changed_px = np.abs(after - before).sum(axis=2) > 60
        assert changed_px.sum() > 8
        assert np.abs(after - INK_RGB)[changed_px].mean() < 40
        assert np.abs(after - before)[12:36, 16:48].mean() < 3, "the lesion is only stored anew"


def test_an_unknown_defect_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"plant is 'label_noise'; allowed are .*label-noise.*; did you mean 'label-noise'\?"):
        made(tmp_path / "out", "label_noise")
    assert not list(tmp_path.iterdir())


def test_every_row_of_the_table_has_its_own_name(sets: dict[str | None, SynthResult]) -> None:
    assert {result.planted.kind for result in sets.values() if result.planted} <= set(PLANTS)
