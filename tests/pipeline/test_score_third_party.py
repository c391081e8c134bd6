"""Somebody else's ONNX model through score, and from there to the report."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from dermalyze.artifact.third_party import ThirdPartyGraph
from dermalyze.config.experiment import build_experiment
from dermalyze.core.run import Run
from dermalyze.errors import ConfigError, ModelError, UsageError
from dermalyze.metrics.activation import softmax
from dermalyze.scoring.predictions import read_predictions

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SETS = ("preprocess.size=[12,16]", "preprocess.mean=[0.4,0.5,0.6]", "preprocess.std=[0.2,0.25,0.3]")
MAP = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32) * 3


def colour_graph(path, *, channels=3, softened=False, batch="n", size=("h", "w"), classes=2, broken=False):
    """Mean color of a normalized image (B, 3, H, W), times a matrix."""
    maps = np.full((3, 2), np.nan, np.float32) if broken else np.resize(MAP, (channels, classes))
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axes"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "maps"], ["out" if not softened else "raw"]),
        *([helper.make_node("Softmax", ["raw"], ["out"])] if softened else []),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, channels, *size])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(np.array([2, 3]), "axes"), numpy_helper.from_array(maps, "maps")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def split_run(tmp_path_factory):
    from dermalyze.stages.prepare import prepare
    from dermalyze.stages.split import split

    root = tmp_path_factory.mktemp("foreign")
    generator = np.random.default_rng(0)
    for k, name in enumerate(("mel", "nv")):
        (root / "own" / name).mkdir(parents=True)
        for i in range(14):
            pixels = generator.integers(60 * k, 180 + 60 * k, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "own" / name / f"{i}.png")
    spec = build_experiment(
        {
            "data": {"source": {"kind": "folder"}, "path": str(root / "own"), "workers": 0},
            "evaluate": {"resamples": 100}, "train": {"cache": "stream"},
        }
    )  # fmt: skip
    run = Run.create(root / "run", spec)
    prepare(run, spec)
    split(run, spec)
    return run, spec


def score(*args, **kwargs):
    from dermalyze.stages.score import score as stage

    return stage(*args, **kwargs)


def normalized(run, spec, part):
    """The images of a part (B, 3, 12, 16), normalized."""
    from dermalyze.data.splitting import read_part
    from dermalyze.data.store import ImageStore
    from dermalyze.imaging.decode import Preprocessing, decode, normalize, to_size

    p = Preprocessing("squash", 12, 16, 0.875, MEAN, STD)
    store = ImageStore.open(spec.data)
    pixels = np.stack([to_size(decode(store.read(path)).image, p) for path in read_part(run, part)["path"]])
    return normalize(pixels, p)


def by_hand(run, spec, part):
    """The same numbers from the images themselves, with numpy."""
    return normalized(run, spec, part).mean(axis=(2, 3)) @ MAP


@pytest.mark.parametrize(
    ("options", "kind"),
    [({}, "logits"), ({"softened": True}, "probabilities"), ({"batch": 4, "size": (12, 16)}, "logits")],
    ids=["logits", "probabilities", "fixed shape"],
)
def test_what_is_stored_is_what_the_graph_gives(split_run, tmp_path, options, kind):
    run, spec = split_run
    result = score(run, spec, model=colour_graph(tmp_path / "Their Net.onnx", **options), sets=SETS)
    assert result.recipe == "by-their-net"
    for part in ("train", "test"):
        stored = read_predictions(run.predictions_path(part, "by-their-net"))
        np.testing.assert_allclose(stored.probs(), softmax(by_hand(run, spec, part)), atol=1e-5)
        assert (stored.meta["scores"], stored.meta["set"]) == (kind, part)
        assert stored.meta["model"].startswith("an ONNX graph (SHA-256 ")
        assert stored.meta["preprocessing"]["mean"] == list(MEAN)


@pytest.fixture(scope="module")
def timm_weights(tmp_path_factory):
    """A small classifier of timm with random weights and its sidecar."""
    import json

    import torch
    from safetensors.torch import save_file

    from dermalyze.config.model import ModelSpec
    from dermalyze.core.atomic import sha256_file
    from dermalyze.models.backbones import create_classifier

    path = tmp_path_factory.mktemp("timm") / "theirs.safetensors"
    torch.manual_seed(0)
    net = create_classifier(ModelSpec(backbone="test_resnet"), 2).eval()
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, path)
    sidecar = {
        "file": path.name, "sha256": sha256_file(path), "create_name": "test_resnet", "create_kwargs": {},
        "input_size": [3, 12, 16], "mean": MEAN, "std": STD,
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path, net, sidecar


def test_a_network_of_timm_gives_what_timm_gives(split_run, timm_weights):
    import torch

    run, spec = split_run
    path, net, _ = timm_weights
    result = score(run, spec, model=path)
    stored = read_predictions(run.predictions_path("test", "by-theirs"))
    with torch.inference_mode():
        expected = net(torch.from_numpy(normalized(run, spec, "test"))).softmax(1).numpy()
    assert result.images["test"] == len(expected)
    np.testing.assert_allclose(stored.probs(), expected, atol=1e-5)
    assert stored.meta["model"].startswith("a network of timm (SHA-256 ")


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"create_name": "test_resnett"}, ConfigError, "unknown to timm"),
        ({"create_name": "test_vit"}, ModelError, "for this network"),
        ({"create_name": "tiny_cnn"}, ConfigError, "no network of timm"),
        ({"sha256": "0" * 64}, ModelError, "SHA-256 is not the recorded"),
        ({"create_kwargs": {"in_chans": 3}}, ConfigError, "set by dermalyze"),
        ({"std": None}, ModelError, "key missing or wrong"),
    ],
    ids=["name", "other network", "own network", "hash", "kwargs", "std"],
)
def test_weights_of_another_network_are_refused(split_run, timm_weights, tmp_path, change, kind, words):
    import json
    import shutil

    run, spec = split_run
    path, _, sidecar = timm_weights
    shutil.copy(path, tmp_path / path.name)
    (tmp_path / "theirs.json").write_text(json.dumps({**sidecar, **change}))
    with pytest.raises(kind, match=words):
        score(run, spec, model=tmp_path / path.name)


def test_the_report_says_which_model_it_is_of(split_run, tmp_path):
    from dermalyze.stages.evaluate import evaluate_predictions

    run, spec = split_run
    score(run, spec, model=colour_graph(tmp_path / "net.onnx"), sets=SETS)
    path = run.predictions_path("test", "by-net")
    found = evaluate_predictions(run, spec, path)
    assert found.page.parent == run.given_report_dir("net")
    stored = read_predictions(path)
    right = (stored.probs().argmax(axis=1) == stored.labels).mean()
    assert found.metrics["metrics"]["accuracy"]["value"] == pytest.approx(right)
    assert stored.meta["model"] in found.page.read_text()
    assert found.metrics["selective"]["coverages"], "the calibration split was scored too"


@pytest.mark.parametrize(
    ("options", "sets", "kind", "words"),
    [
        ({}, SETS[:1], UsageError, "takes normalized pixels; say how"),
        ({}, SETS[1:], UsageError, "takes any size; say which"),
        ({}, ("train.epochs=3",), UsageError, "only preprocess.size"),
        ({"classes": 3}, SETS, ModelError, r"none is \(B, 2\)"),
        ({"channels": 1}, SETS, ModelError, "must take one image"),
        ({"broken": True}, SETS, ModelError, "gave NaN or infinity"),
    ],
    ids=["mean", "size", "setting", "classes", "channels", "nan"],
)
def test_what_cannot_be_known_or_run_is_refused(split_run, tmp_path, options, sets, kind, words):
    run, spec = split_run
    with pytest.raises(kind, match=words):
        score(run, spec, model=colour_graph(tmp_path / "bad.onnx", **options), sets=sets)
    assert not run.predictions_path("test", "by-bad").exists()


def test_files_that_are_no_graph_are_refused_unopened(split_run, tmp_path):
    run, spec = split_run
    for name, data, kind, words in (
        ("a.onnx", b"\x80\x04gadget", ModelError, "a pickle, not an ONNX file"),
        ("b.onnx", b"PK\x03\x04", ModelError, "a zip archive"),
        ("c.pt", b"x", UsageError, "neither an ONNX file"),
        ("d.safetensors", b"\x80\x04gadget", ModelError, "a pickle or zip archive"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(kind, match=words):
            score(run, spec, model=tmp_path / name, sets=SETS)
    with pytest.raises(UsageError, match="--set belongs to"):
        score(run, spec, sets=SETS)


def test_external_data_is_refused(tmp_path):
    model = onnx.load(colour_graph(tmp_path / "net.onnx"))
    tensor = model.graph.initializer[1]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hosts")
    with pytest.raises(ModelError, match="external data"):
        ThirdPartyGraph(model.SerializeToString(), "net.onnx", classes=2)


def test_pixels_in_uint8_are_given_as_they_are(graph_bytes):
    """A graph of our own kind, which normalizes inside."""
    graph = ThirdPartyGraph(graph_bytes(3, 12, 16), "own.onnx", classes=3)
    assert (graph.size, graph.normalized) == ((12, 16), False)
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(graph.run(images, MEAN, STD), graph.run(images, (0.0,) * 3, (1.0,) * 3))
    assert graph.run(images[:0], MEAN, STD).shape == (0, 3)
