"""A model of two images per sample, served: the second one is a part of the form, one per file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api import package_client
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from starlette.testclient import TestClient

from dermalyze.config.serve import ServeSpec
from dermalyze.errors import UsageError
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.server.app import build_app
from dermalyze.serve.server.service import Service

HEIGHT, WIDTH = 12, 16
NO_IMAGE_2 = "no image_2: answered without it"


def png(value: int) -> bytes:
    sink = io.BytesIO()
    noise = np.random.default_rng(value).integers(-20, 20, (48, 64, 3))
    Image.fromarray((value + noise).clip(0, 255).astype(np.uint8)).save(sink, format="PNG")
    return sink.getvalue()


FIRST, DARK, BRIGHT = png(120), png(40), png(200)


def graph() -> bytes:
    """The embedding is the mean of the first image, and of the second where there is one."""
    node, info = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        node("Cast", ["image_2"], ["y"], to=TensorProto.FLOAT),
        node("Cast", ["present"], ["p"], to=TensorProto.FLOAT),
        node("ReduceMean", ["x", "axes"], ["mx"], keepdims=0),
        node("ReduceMean", ["y", "axes"], ["my"], keepdims=0),
        node("Mul", ["my", "p"], ["seen"]),
        node("Sub", ["mx", "seen"], ["both"]),
        node("Div", ["both", "full"], ["embedding"]),
        node("MatMul", ["embedding", "maps"], ["logits"]),
    ]
    constants = {
        "axes": np.array([1, 2]), "full": np.float32(64),
        "maps": np.array([[1, -1, 0], [1, 0, -1], [1, -1, -1]], np.float32),
    }  # fmt: skip
    image = ["batch", HEIGHT, WIDTH, 3]
    made = helper.make_graph(
        nodes, "two",
        [info("image", TensorProto.UINT8, image), info("image_2", TensorProto.UINT8, image),
         info("present", TensorProto.BOOL, ["batch", 1])],
        [info("logits", TensorProto.FLOAT, ["batch", 3]), info("embedding", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString())


@pytest.fixture
def folder(make_artifact: Any) -> Path:
    shape = [HEIGHT, WIDTH, 3]
    inputs = [
        {"name": "image", "dtype": "uint8", "shape": shape, "optional": False},
        {"name": "image_2", "dtype": "uint8", "shape": shape, "optional": True},
        {"name": "present", "dtype": "bool", "shape": [1], "optional": False},
    ]
    return Path(make_artifact(graph=graph(), inputs=inputs))


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    service = Service([folder], ServeSpec(decoders=1, threads=1))
    try:
        yield TestClient(build_app(service, hosts=["*"]))
    finally:
        service.close()


def part(name: str, data: bytes) -> tuple[str, tuple[str, bytes, str]]:
    return name, ("image", data, "application/octet-stream")


def test_the_server_gives_the_predictors_answer(client: TestClient, folder: Path) -> None:
    predictor = Predictor(folder, threads=1)
    assert client.get("/v1/models").json()["models"][0]["optional_images"] == ["image_2"]
    sent = [part("file", FIRST), part("file", FIRST), part("file", FIRST)]
    sent += [part("image_2", DARK), part("image_2", b""), part("image_2", BRIGHT)]
    results = client.post("/v1/predict", files=sent).json()["results"]
    for result, image_2 in zip(results, (DARK, None, BRIGHT), strict=True):
        expected = predictor.predict(FIRST, image_2=image_2)
        assert result["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
        assert (NO_IMAGE_2 in result["notes"]) == (NO_IMAGE_2 in expected.notes) == (image_2 is None)
    assert results[0]["probabilities"] != pytest.approx(results[2]["probabilities"], abs=0.05)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ([part("file", FIRST), part("file", FIRST), part("image_2", DARK)], "image_2: 1 parts for 2 images"),
        ([part("file", FIRST), part("image_2", b"no image at all")], "image_2: "),
    ],
)
def test_what_does_not_fit_is_refused(client: TestClient, sent: list[Any], words: str) -> None:
    response = client.post("/v1/predict", files=sent)
    assert 400 <= response.status_code < 500
    assert words in response.json()["error"]["message"]


def test_a_model_of_one_image_takes_no_second_one(make_artifact: Any) -> None:
    folder = make_artifact()
    with pytest.raises(UsageError, match="image_2: this model takes one image per sample"):
        Predictor(folder, threads=1).predict(FIRST, image_2=DARK)
    service = Service([folder], ServeSpec(decoders=1, threads=1))
    try:
        response = TestClient(build_app(service, hosts=["*"])).post(
            "/v1/predict", files=[part("file", FIRST), part("image_2", DARK)]
        )
    finally:
        service.close()
    assert response.status_code == 422
    assert "takes one image per sample" in response.json()["error"]["message"]


def test_the_client_sends_both(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = package_client(client, monkeypatch)
    dark, bright = (asked.predict(FIRST, image_2=image)["results"][0]["probabilities"] for image in (DARK, BRIGHT))
    assert dark != pytest.approx(bright, abs=0.05)


def test_an_unreadable_second_image_is_an_error_not_an_answer(folder: Path) -> None:
    rows = list(Predictor(folder, threads=1).predict_batch([{"image": FIRST, "image_2": b"broken"}, {"image": FIRST}]))
    assert rows[0].error is not None
    assert rows[0].error.startswith("image_2: ")
    assert rows[1].error is None
    assert NO_IMAGE_2 in rows[1].notes


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image_2": FIRST}, "a sample has image_2, must have 'image'"),
        ({}, "a sample has no image, must have 'image'"),
        ({"image": FIRST, "image_3": DARK}, "image_3: this model takes image, image_2; leave it out"),
    ],
)
def test_a_sample_of_other_images_is_refused(folder: Path, given: dict[str, bytes], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(Predictor(folder, threads=1).predict_batch([given]))


def test_a_second_image_is_not_dropped_by_a_model_of_one(make_artifact: Any) -> None:
    with pytest.raises(UsageError, match="image_2: this model takes one image per sample"):
        list(Predictor(make_artifact(), threads=1).predict_batch([{"image": FIRST, "image_2": DARK}]))
