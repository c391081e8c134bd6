"""Every fusion behind small backbones and heads: one interface, save and load, export; the table agrees with its specs."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from dermalyze.artifact.graph import Graph
from dermalyze.config.model import FusionSpec, MetadataSpec, ModelSpec
from dermalyze.errors import ModelError, UsageError
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.imaging.tabular import fit_encoder
from dermalyze.models.classifier import Classifier, build_classifier, inputs_of
from dermalyze.models.deployed import Deployed, to_onnx
from dermalyze.models.fusion import FUSIONS, Expert, FusedHead, Late
from dermalyze.models.mc_dropout import DropoutSampler
from dermalyze.models.parity import TOLERANCE, measure_parity
from dermalyze.models.weights import load_state, save_state

ENCODER = fit_encoder({"age": [30, 50, 70], "site": ["back", "face", "foot"]})
SPECS = {get_args(member.model_fields["kind"].annotation)[0]: member for member in get_args(get_args(FusionSpec)[0])}
HEADS = ("linear", "acrnn")  # of pooled features, of the map


def spec_of(kind: str, head: str = "linear", backbone: str = "tiny_cnn") -> ModelSpec:
    metadata = MetadataSpec(columns=ENCODER.names, fusion=SPECS[kind]())
    return ModelSpec.model_validate({"backbone": backbone, "head": {"kind": head}, "metadata": metadata.model_dump()})


def build(kind: str, head: str = "linear", backbone: str = "tiny_cnn", seed: int = 0) -> Classifier:
    """A network whose metadata count: what begins at 0 is drawn."""
    torch.manual_seed(seed)
    model = build_classifier(spec_of(kind, head, backbone), 3, load_weights=False, encoder=ENCODER)
    with torch.no_grad():
        for name, tensor in model.head.state_dict().items():
            if "scale_shift" in name or name in ("weight", "bias"):
                tensor.normal_(0, 0.5)
    return model.eval()


def test_table_and_specs_name_the_same_fusions() -> None:
    assert FUSIONS.keys() == SPECS.keys()


@pytest.mark.parametrize("kind", FUSIONS)
def test_keyword_arguments_are_the_fields(kind: str) -> None:
    keywords = {n for n, p in inspect.signature(FUSIONS[kind]).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert keywords == SPECS[kind].model_fields.keys() - {"kind", "hide"}  # what is hidden is training's, not the network's


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", FUSIONS)
def test_forward_backward_save_load(kind: str, head: str, tmp_path: Path) -> None:
    model = build(kind, head).train()
    images, metadata = torch.randn(2, 3, 32, 40), torch.from_numpy(ENCODER({"age": [40, None], "site": ["back", "elbow"]}))
    logits = model({"image": images, "metadata": metadata})
    assert logits.shape == (2, 3)
    assert logits.dtype == torch.float32
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    save_state(tmp_path / "a.safetensors", model)
    other = build_classifier(spec_of(kind, head), 3, load_weights=False, encoder=ENCODER).eval()
    model.eval()
    with torch.inference_mode():
        assert not torch.equal(other({"image": images, "metadata": metadata}), model({"image": images, "metadata": metadata}))
        load_state(tmp_path / "a.safetensors", other)
        expected, embedding = model.forward_with_embedding({"image": images, "metadata": metadata})
        assert torch.equal(other({"image": images, "metadata": metadata}), expected)
        assert embedding.shape == (2, model.width)
        torch.testing.assert_close(model.embed(images), embedding)  # of the image alone


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", FUSIONS)
def test_metadata_count_and_nothing_known_is_the_blank_row(kind: str, head: str) -> None:
    model = build(kind, head)
    images = torch.randn(2, 3, 32, 40)
    metadata = torch.from_numpy(ENCODER({"age": [40, 60], "site": ["back", "foot"]}))
    blank = torch.from_numpy(np.tile(ENCODER.blank, (2, 1)))
    with torch.inference_mode():
        known, unknown = model({"image": images, "metadata": metadata}), model(images)
        assert not torch.allclose(known, unknown, atol=1e-4)
        torch.testing.assert_close(model({"image": images, "metadata": blank}), unknown)
        alone = torch.cat([model({"image": images[i : i + 1], "metadata": metadata[i : i + 1]}) for i in range(2)])
        torch.testing.assert_close(alone, known, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "head"), [("late", "linear"), ("concat", "linear"), ("film", "acrnn")])
def test_export(kind: str, head: str) -> None:
    """The graph gives the probabilities of PyTorch for any batch, and refuses metadata of another shape."""
    model = build(kind, head)
    p = Preprocessing("squash", 32, 40, 1.0, model.backbone.mean, model.backbone.std)
    network = Deployed(model, p, inputs_of(spec_of(kind, head), p, ENCODER)).eval()
    graph = Graph(to_onnx(network), network.inputs, classes=3)
    assert measure_parity(network, graph)["max_probability_difference"] < TOLERANCE
    images = np.zeros((2, 32, 40, 3), np.uint8)
    with pytest.raises(ModelError, match="the batch has image; the model takes image, metadata"):
        graph.run({"image": images})
    for metadata in (np.zeros((2, 3), np.float32), np.zeros((1, ENCODER.width), np.float32)):
        with pytest.raises(ModelError, match="metadata is float32"):
            graph.run({"image": images, "metadata": metadata})
    nothing = graph.run({"image": images[:0], "metadata": np.zeros((0, ENCODER.width), np.float32)})
    assert nothing[0].shape == (0, 3)


def test_a_network_of_images_alone_refuses_metadata() -> None:
    model = build_classifier(ModelSpec(backbone="tiny_cnn"), 3, load_weights=False).eval()
    with pytest.raises(UsageError, match="takes no metadata"):
        model({"image": torch.zeros(1, 3, 32, 40), "metadata": torch.zeros(1, ENCODER.width)})


def test_an_encoder_of_other_columns_is_refused() -> None:
    for spec, encoder in ((spec_of("late"), None), (ModelSpec(backbone="tiny_cnn"), ENCODER)):
        with pytest.raises(ModelError, match="metadata encoder has columns"):
            build_classifier(spec, 3, load_weights=False, encoder=encoder)
    with pytest.raises(UsageError, match="a row an image"):
        build("film")({"image": torch.zeros(2, 3, 32, 40), "metadata": torch.zeros(2, 3)})


def test_film_begins_as_the_identity() -> None:
    torch.manual_seed(0)
    model = build_classifier(spec_of("film"), 3, load_weights=False, encoder=ENCODER).eval()
    assert isinstance(model.head, FusedHead)
    features, rows = torch.randn(2, model.width), torch.randn(2, ENCODER.width)
    torch.testing.assert_close(model.head(features, rows), model.head.head(features))  # type: ignore[operator]


def test_film_on_the_map_before_a_mean_is_film_on_the_pooled() -> None:
    """What makes one place for both: a linear head on modulated pooled features equals pooling the modulated map."""
    model = build("film")
    images, rows = torch.randn(2, 3, 32, 40), torch.randn(2, ENCODER.width)
    with torch.inference_mode():
        scale, shift = model.head.scale_shift(rows).chunk(2, dim=1)  # type: ignore[operator,union-attr]
        modulated = model.features(images) * (1 + scale[..., None, None]) + shift[..., None, None]
        expected = model.head.head(modulated.mean(dim=(2, 3)))  # type: ignore[operator,union-attr]
        torch.testing.assert_close(model({"image": images, "metadata": rows}), expected, rtol=1e-4, atol=1e-5)


def test_the_concat_network_is_the_documents() -> None:
    model = build_classifier(spec_of("concat", backbone="resnet50"), 7, load_weights=False, encoder=ENCODER)
    sizes = [tuple(layer.weight.shape) for layer in model.head.modules() if isinstance(layer, torch.nn.Linear)]
    assert sizes == [(128, ENCODER.width), (64, 128), (512, 2048 + 64), (7, 512)]
    assert [layer.p for layer in model.head.modules() if isinstance(layer, torch.nn.Dropout)] == [0.2, 0.3]


def test_late_holds_its_layer_for_saving_alone() -> None:
    model = build_classifier(spec_of("late"), 3, load_weights=False, encoder=ENCODER).eval()
    rng = np.random.default_rng(0)
    expert = Expert(rng.standard_normal((3, ENCODER.width)), rng.standard_normal(3), strength=0.5)
    images, rows = torch.randn(2, 3, 32, 40), rng.standard_normal((2, ENCODER.width)).astype(np.float32)
    assert isinstance(model.head, Late)
    with torch.inference_mode():
        alone = model({"image": images, "metadata": torch.from_numpy(rows)})
        with model.head.holding(expert):
            fused = model({"image": images, "metadata": torch.from_numpy(rows)})
        torch.testing.assert_close(fused, alone + torch.from_numpy(0.5 * expert.evidence(rows)).float(), rtol=1e-5, atol=1e-5)
        assert torch.equal(model({"image": images, "metadata": torch.from_numpy(rows)}), alone)


def test_mc_dropout_of_a_network_with_metadata() -> None:
    sampler = DropoutSampler(build("concat"), seed=1, passes=3)
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 32, 40)).astype(np.float32))
    rows = torch.from_numpy(ENCODER({"age": [40, 60], "site": ["back", "foot"]}))
    together = sampler({"image": images, "metadata": rows}, ["a", "b"])
    np.testing.assert_allclose(sampler({"image": images[1:], "metadata": rows[1:]}, ["b"]), together[1:], rtol=1e-4, atol=1e-5)
    assert np.ptp(together, axis=1).min() > 0
    assert np.abs(sampler(images, ["a", "b"]) - together).max() > 1e-3
