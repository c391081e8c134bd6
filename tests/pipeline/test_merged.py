"""Two collections that share images: prepared, split without a leak, drawn in balance, and known again by evaluation."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import write
from PIL import Image

from dermalyze.config.experiment import build_experiment
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_manifest
from dermalyze.data.splitting import read_division, read_part
from dermalyze.errors import ConfigError, DataError
from dermalyze.scoring.external_set import open_external, trained_on
from dermalyze.stages.init import freeze
from dermalyze.stages.prepare import prepare
from dermalyze.stages.split import split

CLASSES = ("mel", "nv", "bcc")
LESIONS = 30


def picture(seed: int, suffix: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((40, 32)).save(buffer, suffix)
    return buffer.getvalue()


def collections(root: Path) -> None:
    """HAM10000 with two images a lesion; ISIC 2019 with one of them (half re-encoded), another of the lesion, and its own."""
    ham, truth, metadata = ["lesion_id,image_id,dx"], ["image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"], ["image,lesion_id"]
    files: dict[str, dict[str, Any]] = {"ham": {}, "isic": {}}

    def judged(name: str, lesion: str, label: str) -> None:
        truth.append(",".join([name, *("1.0" if c == label.upper() else "0.0" for c in truth[0].split(",")[1:])]))
        metadata.append(f"{name},{lesion}")

    for i in range(LESIONS):
        label, lesion = CLASSES[i % 3], f"HAM_{i:07}"
        a, b, c, own = (f"ISIC_{k * 1000 + i:07}" for k in range(4))
        for name in (a, b):
            ham.append(f"{lesion},{name},{label}")
            files["ham"][f"imgs/{name}.png"] = picture(int(name[5:]))
        judged(a, lesion, label)  # the same image
        files["isic"][f"{a}.jpg"] = picture(int(a[5:]), "JPEG") if i % 2 else picture(int(a[5:]))
        judged(c, lesion, label)  # another of the lesion
        judged(own, f"BCN_{i:07}", label)
        files["isic"] |= {f"{name}.jpg": picture(int(name[5:])) for name in (c, own)}
    write(root / "ham", {"HAM10000_metadata.csv": "\n".join(ham) + "\n", **files["ham"]})
    tables = {"ISIC_2019_Training_GroundTruth.csv": truth, "ISIC_2019_Training_Metadata.csv": metadata}
    write(root / "isic", {name: "\n".join(lines) + "\n" for name, lines in tables.items()} | files["isic"])


def merged(root: Path, **data: Any) -> dict[str, Any]:
    sources = [
        {"name": "ham", "path": str(root / "ham"), "source": {"kind": "ham10000"}},
        {"path": str(root / "isic"), "source": {"kind": "isic2019"}, "label_map": "ham10000"},
    ]
    return {"data": {"source": {"kind": "merged", "sources": sources}, "classes": list(CLASSES), "workers": 0, **data}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    root = tmp_path_factory.mktemp("merged")
    collections(root)
    run = freeze(root / "run", build_experiment(merged(root)))
    result = prepare(run, run.config())
    (root / "lines.json").write_text(json.dumps(result.lines()))
    split(run, run.config())
    return root, run


def test_a_whole_run_on_merged_sources_drawn_in_balance(world: tuple[Path, Run], tmp_path: Path) -> None:
    from dermalyze.workflows.pipeline import run_experiment

    root, _ = world
    values = {
        **merged(root),
        "model": {"backbone": "tiny_cnn", "kwargs": {"channels": [8, 16]}, "head": {"kind": "linear"}},
        "preprocess": {"size": 16},
        "train": {"epochs": 1, "batch_size": 32, "threads": 1, "balance_sources": True, "augment": {"policy": "none"}},
        "evaluate": {"resamples": 100},
    }
    run_experiment(build_experiment(values), tmp_path / "run")
    metrics = json.loads(Run(tmp_path / "run").evaluation_path.read_text())
    assert not metrics["accepted_leak"]


def test_prepare_tells_what_the_sources_share(world: tuple[Path, Run]) -> None:
    root, run = world
    summary = json.loads(run.summary_path.read_text())
    assert summary["sources"] == {"isic2019": 90, "ham": 60}
    assert summary["shared_pictures"] == [{"sources": ["ham", "isic2019"], "pictures": 15}]
    assert summary["class_counts"] == dict.fromkeys(CLASSES, 50)
    lines = json.loads((root / "lines.json").read_text())
    assert "ham and isic2019 share 15 identical images; each stays in one split" in lines
    assert "ham and isic2019 share 30 archive images, 30 lesions by their ids; each stays in one split" in lines
    assert prepare(run, run.config()).fresh is False


def test_no_lesion_and_no_picture_crosses_the_split(world: tuple[Path, Run]) -> None:
    _, run = world
    frame, parts = read_division(run)
    part_of: dict[str, set[str]] = {}
    for image_id, part in zip(frame["image_id"], parts, strict=True):
        number = int(image_id.rpartition("_")[2])
        part_of.setdefault(f"own {number}" if number >= 3000 else str(number % 1000), set()).add(part)
    assert len(part_of) == 2 * LESIONS
    assert all(len(found) == 1 for found in part_of.values())
    assert json.loads(run.certificate_path.read_text())["passed"] is True
    assert set(read_part(run, "test")["source"]) == {"ham", "isic2019"}


def test_the_path_of_each_source_is_frozen_absolute_and_must_be_there(
    world: tuple[Path, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = world
    monkeypatch.chdir(root)
    values = merged(Path())
    run = freeze(tmp_path / "run", build_experiment(values))
    monkeypatch.chdir(tmp_path)
    assert prepare(run, run.config()).summary["images"] == 150
    values["data"]["source"]["sources"][0]["path"] = "hamm"
    with pytest.raises(ConfigError, match=r"data\.source\.sources \(ham\)\.path: .*hamm does not exist"):
        freeze(tmp_path / "other", build_experiment(values))
    with pytest.raises(ConfigError, match="merges sources with their own paths; leave --data out"):
        run.fill_data_path(["a"])


@pytest.mark.parametrize(
    ("values", "on", "expected"),
    [("ham", "isic", 60), ("isic", "ham", 60), ("merged", "ham", 60), ("merged", "isic", 90)],
)
def test_evaluation_finds_what_a_model_of_the_other_collection_was_made_with(
    world: tuple[Path, Run], tmp_path: Path, values: str, on: str, expected: int
) -> None:
    """ISIC 2019 contains HAM10000: the images, and the lesions of other images."""
    root, _ = world
    kinds = {"ham": "ham10000", "isic": "isic2019"}
    one = {
        "source": {"kind": kinds.get(values, "")},
        "path": str(root / values),
        "label_map": "ham10000",
        "classes": list(CLASSES),
    }
    spec = build_experiment(merged(root) if values == "merged" else {"data": {**one, "workers": 0}})
    run = Run.create(tmp_path / "run", spec)
    prepare(run, spec)
    split(run, spec)
    label_map = {name.upper(): name for name in CLASSES}
    external = open_external(root / on, spec.data, CLASSES, label_map)
    assert external.kind == kinds[on]
    used = trained_on(run, external, spec.data)
    _, parts = read_division(run)
    frame = read_manifest(run).set_index("image_id")
    made = {
        int(i.rpartition("_")[2]) % 1000 if int(i.rpartition("_")[2]) < 3000 else i.rpartition("_")[2]
        for i in frame.index[(parts != "test").to_numpy()]
    }
    there = [int(i.rpartition("_")[2]) for i in external.frame["image_id"]]
    assert sum(used.values()) == sum((n % 1000 if n < 3000 else f"{n:07}") in made for n in there)
    assert 0 < sum(used.values()) <= expected


def test_a_label_mapped_to_null_is_left_out_and_said(world: tuple[Path, Run], tmp_path: Path) -> None:
    root, _ = world
    spec = build_experiment(
        {"data": {"path": str(root / "ham"), "label_map": {"bcc": None}, "classes": ["mel", "nv"], "workers": 0}}
    )
    run = Run.create(tmp_path / "run", spec)
    result = prepare(run, spec)
    assert result.summary["class_counts"] == {"mel": 20, "nv": 20}
    assert "20 images with label 'bcc' are left out by data.label_map" in result.lines()
    assert run.config() == spec, "null survives the frozen configuration"


def test_a_map_given_by_name_is_written_out_with_its_classes(tmp_path: Path) -> None:
    spec = build_experiment({"data": {"label_map": "ham10000"}})
    assert spec.data.classes == ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    assert spec.data.label_map["SCC"] == spec.data.label_map["AK"] == spec.data.label_map["ACK"] == "akiec"
    assert Run.create(tmp_path / "run", spec).config() == spec
    chosen = build_experiment({"data": {"label_map": "ham10000", "classes": ["mel", "nv"]}})
    assert chosen.data.classes == ["mel", "nv"]
    with pytest.raises(ConfigError, match=r"unknown label map 'ham1000'; allowed: ham10000, derm7pt; did you mean 'ham10000'"):
        build_experiment({"data": {"label_map": "ham1000"}})


def test_balanced_sources_are_drawn_equally_often(world: tuple[Path, Run]) -> None:
    from dermalyze.data.manifest import source_codes
    from dermalyze.training.imbalance import draw_order

    _, run = world
    frame = read_part(run, "train")
    codes = source_codes(frame["source"])
    assert [sorted(set(frame["source"]))[code] for code in codes] == frame["source"].tolist()
    order = draw_order(run.config().train.imbalance, np.zeros(len(frame)), seed=1, epoch=0, sources_N=codes)
    drawn = frame["source"].iloc[order].value_counts()
    assert drawn.max() - drawn.min() <= 1
    assert frame["source"].value_counts().min() < drawn.min()
    with pytest.raises(DataError, match="1 sources in the training split, 0 images without one"):
        source_codes(frame["source"].iloc[:1])
    with pytest.raises(DataError, match=r"2 sources .*, 1 images without one.*data\.source\.kind merged"):
        source_codes(frame["source"].where(frame.index != frame.index[0], None))
