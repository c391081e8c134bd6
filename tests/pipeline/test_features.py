"""embed, plot-embeddings, similar and linear-probe on a small run, and what they refuse."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import save_clip
from PIL import Image

from dermalyze.core.atomic import write_json
from dermalyze.data.manifest import read_manifest
from dermalyze.data.splitting import read_part
from dermalyze.errors import ConfigError, DataError, MissingExtraError, ModelError, UsageError
from dermalyze.scoring.features.store import read_features, read_stored
from dermalyze.scoring.predictions import read_predictions
from dermalyze.stages.embed import embed
from dermalyze.stages.evaluate import evaluate_predictions
from dermalyze.stages.linear_probe import linear_probe
from dermalyze.stages.plot_embeddings import plot_embeddings
from dermalyze.stages.score import score
from dermalyze.stages.similar import similar


@pytest.fixture(scope="module")
def world(new_world: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Exported and scored."""
    from dermalyze.stages.export import export

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = new_world(evaluate={"resamples": 100})
        export(made.run, made.spec)
        score(made.run, made.spec)
    return made


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from safetensors.torch import save_file

    from dermalyze.config.model import ModelSpec
    from dermalyze.models.backbones import create_backbone

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    spec = ModelSpec(backbone="tiny_cnn", kwargs={"channels": [4, 8]})
    save_file(create_backbone(spec, load_weights=False).net.state_dict(), path)
    sidecar = {
        "file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size,
        "create_name": "tiny_cnn", "create_kwargs": {"channels": [4, 8]}, "feature_dim": 8, "input_size": [3, 24, 32],
        "mean": [0.5] * 3, "std": [0.25] * 3,
    }  # fmt: skip
    write_json(path.with_suffix(".json"), sidecar)
    return path


@pytest.fixture(scope="module")
def embedded(world: Any, tiny_weights: Path) -> Any:
    return embed(world.run, world.spec, weights=tiny_weights)


def image_of(world: Any, part: str) -> tuple[Any, Path]:
    row = read_part(world.run, part).iloc[0]
    return row, next(path for path in world.images if path.name == Path(row["path"]).name)


def test_embed_stores_what_the_network_gives_at_its_own_size(world: Any, embedded: Any, tiny_weights: Path) -> None:
    from dermalyze.models.embedding import Embedder
    from dermalyze.stages.embed import frozen_spec

    assert (embedded.name, embedded.images, embedded.width, embedded.size) == ("tiny_cnn", 30, 8, (24, 32))
    ids, values, meta = read_stored(world.run.features_path("tiny_cnn"))
    row = read_manifest(world.run).set_index("image_id").loc[ids[3]]
    with Image.open(next(path for path in world.images if path.name == Path(row["path"]).name)) as image:
        small = image.convert("RGB").resize((32, 24), Image.Resampling.BILINEAR)
    normal = ((np.asarray(small, np.float32) / 255 - 0.5) / 0.25).transpose(2, 0, 1)[None]
    own = Embedder(frozen_spec(world.spec.model, None, tiny_weights))
    np.testing.assert_allclose(own(np.ascontiguousarray(normal))[0], values[3], atol=1e-4)
    assert meta["weights_sha256"] == hashlib.sha256(tiny_weights.read_bytes()).hexdigest()


def test_embed_needs_pretrained_weights(world: Any) -> None:
    with pytest.raises(UsageError, match="--backbone NAME"):
        embed(world.run, world.spec)


def test_features_are_those_of_each_image(world: Any, embedded: Any) -> None:
    own, other = read_features(world.run, "plain"), read_features(world.run, "plain", "tiny_cnn")
    p = read_predictions(world.run.predictions_path("test", "plain"))
    at = [own.frame["image_id"].tolist().index(image_id) for image_id in p.ids]
    assert p.embedding is not None
    np.testing.assert_array_equal(own.values[at], p.embedding)
    assert own.called[at].tolist() == [p.classes[c] for c in p.logits.argmax(axis=1)]
    assert own.frame["part"].iloc[at].eq("test").all()
    assert other.frame.equals(own.frame)
    ids, values, _ = read_stored(world.run.features_path("tiny_cnn"))
    np.testing.assert_array_equal(other.values, values[[ids.index(image_id) for image_id in other.frame["image_id"]]])
    with pytest.raises(UsageError, match="did you mean 'tiny_cnn'"):
        read_features(world.run, "plain", "tiny_cn")


@pytest.mark.parametrize(("method", "by"), [("pca", "class"), ("tsne", "part")])
def test_maps_are_drawn_and_the_same_for_the_same_seed(world: Any, method: str, by: str) -> None:
    first = plot_embeddings(world.run, world.spec, method=method, by=by, part="all")
    figure, page = first.figure.read_bytes(), first.page.read_text()
    assert first.points == first.thumbnails == 30
    assert page.count('"/9j/') == 30  # every image, as JPEG
    assert "no evidence" in page
    with Image.open(first.figure) as image:
        assert image.width == 1500
    again = plot_embeddings(world.run, world.spec, method=method, by=by, part="all")
    assert (again.figure.read_bytes(), again.page.read_text()) == (figure, page)


def test_a_map_of_the_test_part_holds_no_other(world: Any) -> None:
    found = plot_embeddings(world.run, world.spec, method="pca", by="error")
    test = set(read_part(world.run, "test")["image_id"])
    text = found.page.read_text()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert {lines[0] for lines in data["words"]} == test
    assert set(data["by"]) == {"class", "error"}


@pytest.mark.parametrize("option", [{"method": "tsn"}, {"by": "clas"}, {"part": "tests"}, {"by": "site"}])
def test_a_map_refuses_unknown_words(world: Any, option: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--"):
        plot_embeddings(world.run, world.spec, **option)


def test_umap_without_its_extra_is_refused_in_one_line(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"dermalyze\[umap\]"):
        plot_embeddings(world.run, world.spec, method="umap")


def test_similar_finds_the_nearest_groups_by_the_stored_features(world: Any, tmp_path: Path) -> None:
    row, path = image_of(world, "test")
    found = similar(world.run, world.spec, path, k=4, out=tmp_path / "sheet.png")
    train, test = (read_predictions(world.run.predictions_path(part, "plain")) for part in ("train", "test"))
    assert train.embedding is not None
    assert test.embedding is not None
    query = test.embedding[test.ids.index(row["image_id"])].astype(float)
    known = train.embedding.astype(float)
    far = 1 - known @ query / np.linalg.norm(known, axis=1) / np.linalg.norm(query)
    expected = np.argsort(far, kind="stable")[:4]  # each image is a group of its own here
    assert [one.image_id for one in found.neighbours] == [train.ids[i] for i in expected]
    assert [one.distance for one in found.neighbours] == pytest.approx(far[expected], abs=1e-5)
    assert [one.label for one in found.neighbours] == [train.classes[train.labels[i]] for i in expected]
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.known == {"image_id": row["image_id"], "part": "test", "label": row["label"]}
    assert "not a diagnosis" in found.lines()[-1]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000


def test_a_training_image_is_said_so_and_is_no_neighbour_of_itself(world: Any, tmp_path: Path) -> None:
    row, path = image_of(world, "train")
    found = similar(world.run, world.spec, path, k=3, out=tmp_path / "sheet.html")
    assert found.known is not None
    assert found.known["part"] == "train"
    assert row["image_id"] not in {one.image_id for one in found.neighbours}
    assert len(found.neighbours) == 3
    text = (tmp_path / "sheet.html").read_text()
    assert "at distance 0 of itself" in text
    assert text.count("data:image/jpeg;base64,") == 4
    assert "not a diagnosis" in text
    assert "http" not in text.replace("http-equiv", "")


def test_similar_refuses_what_is_no_image(world: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image at all")
    with pytest.raises(DataError, match="image: "):
        similar(world.run, world.spec, tmp_path / "a.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        similar(world.run, world.spec, tmp_path / "b.jpg")
    with pytest.raises(UsageError, match="must end in"):
        similar(world.run, world.spec, world.images[0], out=tmp_path / "a.pdf")


@pytest.mark.parametrize("features", ["own", "tiny_cnn"])
def test_linear_probe_writes_a_table_and_predictions_that_evaluate_reads(world: Any, embedded: Any, features: str) -> None:
    found = linear_probe(world.run, world.spec, features=features)
    written = json.loads(world.run.linear_probe_path(features).read_text())
    assert written == found.values
    assert [model["name"] for model in written["models"]] == ["trained", "linear-probe", "nearest-neighbours"]
    few = written["few_shot"]
    assert [row["shots"] for row in few] == [1, 5, 10, 20]
    assert few[0]["metrics"]["accuracy"]["value"] is not None
    assert few[3]["metrics"]["accuracy"]["note"].endswith("a class has fewer than 20 training groups")
    path = next(path for path in found.files if path.name.startswith("test-by-linear-probe"))
    p = read_predictions(path)
    assert p.ids == read_part(world.run, "test")["image_id"].tolist()
    accuracy = float((p.logits.argmax(axis=1) == p.labels).mean())
    assert written["models"][1]["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)
    judged = evaluate_predictions(world.run, world.spec, path)
    assert judged.metrics["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert "linear probe" in " ".join(judged.metrics["about"]["sentences"])


def test_changed_or_damaged_features_are_refused(world: Any, embedded: Any) -> None:
    path = world.run.features_path("tiny_cnn")
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ModelError, match="run embed again"):
            linear_probe(world.run, world.spec, features="tiny_cnn")
    finally:
        path.write_bytes(whole)


@pytest.fixture(scope="module")
def prompts(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`prompts(change)`: a file of prompts for the world's classes, changed."""
    folder = tmp_path_factory.mktemp("prompts")
    weights = save_clip(folder)
    classes = read_predictions(world.run.predictions_path("test", "plain")).classes

    def write(change: dict[str, Any] | None = None) -> Path:
        asked = {
            "weights": str(weights), "templates": ["a photo of {}", "{}"],
            "prompts": {name: [f"a lesion called {name}"] for name in classes},
        }  # fmt: skip
        (folder / "prompts.yaml").write_text(json.dumps(asked | (change or {})))
        return folder / "prompts.yaml"

    return write


def test_zero_shot_stands_beside_the_others_and_new_prompts_need_no_images(
    world: Any, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dermalyze.stages import embed as module

    assert embed(world.run, world.spec, clip=prompts()).width == 12
    found = linear_probe(world.run, world.spec, features="clip")
    row = next(model for model in found.values["models"] if model["name"] == "zero-shot")
    assert row["chosen"]["templates"] == ["a photo of {}", "{}"]
    path = next(path for path in found.files if path.name.startswith("test-by-zero-shot"))
    p = read_predictions(path)
    _, values, meta = read_stored(world.run.features_path("clip"))
    features = read_features(world.run, "plain", "clip")
    test = features.values[(features.frame["part"] == "test").to_numpy()].astype(float)
    cosine = test / np.linalg.norm(test, axis=1, keepdims=True) @ np.array(meta["zero_shot"]["directions"]).T
    np.testing.assert_array_equal(p.logits.argmax(axis=1), cosine.argmax(axis=1))
    right = (cosine.argmax(axis=1) == p.labels).mean()
    assert row["metrics"]["accuracy"]["value"] == pytest.approx(right)
    assert row["metrics"]["accuracy"]["groups"] == found.values["groups"]
    assert any("zero-shot by prompts, scale" in line for line in found.lines())
    assert evaluate_predictions(world.run, world.spec, path).metrics["metrics"]["accuracy"]["value"] == pytest.approx(right)

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("the images are stored")

    monkeypatch.setattr(module, "read_batches", never)
    embed(world.run, world.spec, clip=prompts({"templates": ["no {}"]}))
    _, again, changed = read_stored(world.run.features_path("clip"))
    np.testing.assert_array_equal(again, values)
    assert changed["zero_shot"]["directions"] != meta["zero_shot"]["directions"]


def test_zero_shot_refuses_before_any_model_is_opened(world: Any, prompts: Any, tmp_path: Path) -> None:
    classes = read_predictions(world.run.predictions_path("test", "plain")).classes
    with pytest.raises(ConfigError, match=f"no prompt of {', '.join(classes[1:])};"):
        embed(world.run, world.spec, clip=prompts({"prompts": {classes[0]: "a mole"}, "weights": "gone.safetensors"}))
    with pytest.raises(UsageError, match="leave out --backbone"):
        embed(world.run, world.spec, clip=prompts(), backbone="resnet18")
    with pytest.raises(UsageError, match="choose another one"):
        embed(world.run, world.spec, clip=prompts({"name": "own"}))
    with pytest.raises(ModelError, match="no such weight file"):
        embed(world.run, world.spec, clip=prompts({"weights": str(tmp_path / "gone.safetensors")}))
    with pytest.raises(ConfigError, match="cannot be read"):
        embed(world.run, world.spec, clip=tmp_path / "gone.yaml")
