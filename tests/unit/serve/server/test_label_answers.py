"""The API of a model of several labels: its answers, beside those of a model of classes on the same server."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api import client_of, drive, files, package_client
from labels import CHEST_LABELS, label_record
from mapped import CAM_RECORD, mapped_graph
from PIL import Image
from serving import picture

from dermalyze.config.serve import ServeSpec
from dermalyze.core.result import DISCLAIMER
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.server import replies
from dermalyze.serve.server.service import Service

IMAGES = [picture(i) for i in range(3)]


def noise() -> bytes:
    """An image that the gate refuses."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def mapped(write: Callable[..., Path], folder: Path, thresholds: list[float], name: str = "films") -> Path:
    record = label_record(thresholds)
    return write(folder, name=name, graph=mapped_graph(len(CHEST_LABELS)), cam=CAM_RECORD, **record)


@pytest.fixture(scope="module")
def probabilities(artifact_writer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Of the labels of the first image; they do not depend on the thresholds."""
    folder = mapped(artifact_writer, tmp_path_factory.mktemp("plain") / "artifact", [0.5] * len(CHEST_LABELS))
    return Predictor(folder, threads=1).predict(IMAGES[0]).probabilities


@pytest.fixture(scope="module")
def artifact(
    artifact_writer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, probabilities: dict[str, float]
) -> Path:
    """The most probable label of the first image just misses its threshold, the least probable one and another reach theirs."""
    order = sorted(CHEST_LABELS, key=lambda name: -probabilities[name])
    shift = {order[0]: 1e-3, order[1]: 0.3, order[2]: -1e-3, order[3]: -1e-3}
    thresholds = [probabilities[name] + shift[name] for name in CHEST_LABELS]
    return mapped(artifact_writer, tmp_path_factory.mktemp("labels") / "artifact", thresholds)


@pytest.fixture(scope="module")
def service(
    artifact: Path, artifact_writer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Of two models with different tasks."""
    classes = artifact_writer(tmp_path_factory.mktemp("classes") / "artifact", name="moles")
    made = Service([artifact, classes], ServeSpec(decoders=1, threads=1, files=4))
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(service: Service) -> Any:
    return client_of(service)


def test_answers_are_those_of_the_predictor(client: Any, artifact: Path) -> None:
    values = client.post("/v1/predict", files=files(*IMAGES)).json()
    replies.PredictReply.model_validate(values)
    assert values["disclaimer"] == DISCLAIMER
    assert values["model"]["name"] == "films"
    predictor = Predictor(artifact, threads=1)
    for image, result in zip(IMAGES, values["results"], strict=True):
        expected = predictor.predict(image).as_dict()
        assert "predicted_class" not in result
        assert "confidence" not in result
        assert result["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
        assert result["thresholds"] == pytest.approx(expected["thresholds"], abs=1e-6)
        assert result["positive"] == expected["positive"]
        assert result["verdict"] == expected["verdict"]
        assert result["reasons"] == expected["reasons"]
        by_hand = [name for name in CHEST_LABELS if result["probabilities"][name] >= result["thresholds"][name]]
        assert result["positive"] == by_hand


def test_labels_above_their_threshold_are_ranked_first(client: Any, probabilities: dict[str, float]) -> None:
    order = sorted(CHEST_LABELS, key=lambda name: -probabilities[name])
    result = client.post("/v1/predict", files=files(IMAGES[0])).json()["results"][0]
    assert result["positive"] == [name for name in CHEST_LABELS if name in order[2:]]
    assert [(row["class"], row["positive"]) for row in result["top"]] == [
        (order[2], True), (order[3], True), (order[0], False), (order[1], False),
    ]  # fmt: skip
    assert all(row["threshold"] == result["thresholds"][row["class"]] for row in result["top"])
    short = client.post("/v1/predict", files=files(IMAGES[0]), data={"top_k": "1"}).json()["results"][0]
    assert [row["class"] for row in short["top"]] == [order[2]]
    assert short["probabilities"] == result["probabilities"]


def test_the_heat_map_is_of_the_most_probable_called_label_or_of_the_named_one(
    client: Any, artifact: Path, probabilities: dict[str, float]
) -> None:
    order = sorted(CHEST_LABELS, key=lambda name: -probabilities[name])
    assert Predictor(artifact, threads=1).predict(IMAGES[0], explain=True).cam_class == order[2]
    for wish, name in (({}, order[2]), ({"class": order[1]}, order[1])):
        values = client.post("/v1/explain", files=files(IMAGES[0]), data=wish).json()
        replies.PredictReply.model_validate(values)
        assert values["results"][0]["heatmap"]["class"] == name
    refused = client.post("/v1/explain", files=files(IMAGES[0]), data={"class": "mel"})
    assert refused.status_code == 422
    assert all(name in refused.json()["error"]["message"] for name in CHEST_LABELS)


def test_without_a_called_label_the_heat_map_is_of_the_most_probable(
    artifact_writer: Callable[..., Path], tmp_path: Path, probabilities: dict[str, float]
) -> None:
    folder = mapped(artifact_writer, tmp_path / "artifact", [0.999] * len(CHEST_LABELS))
    made = Service([folder], ServeSpec(decoders=1, threads=1))
    try:
        result = client_of(made).post("/v1/explain", files=files(IMAGES[0])).json()["results"][0]
    finally:
        made.close()
    assert result["positive"] == []
    assert result["heatmap"]["class"] == max(probabilities, key=lambda name: probabilities[name])


def test_models_name_their_task_labels_and_thresholds(client: Any, artifact: Path) -> None:
    values = client.get("/v1/models").json()
    replies.ModelsReply.model_validate(values)
    films, moles = values["models"]
    assert (films["task"], moles["task"]) == ("multilabel", "multiclass")
    assert [row["name"] for row in films["classes"]] == list(CHEST_LABELS)
    recorded = json.loads((artifact / "artifact.json").read_text())["calibration"]["thresholds"]
    assert films["thresholds"] == recorded
    assert moles["thresholds"] is None


def test_two_tasks_side_by_side(client: Any) -> None:
    films = client.post("/v1/predict", files=files(IMAGES[0])).json()["results"][0]
    moles = client.post("/v1/predict", files=files(IMAGES[0]), data={"model": "moles"}).json()["results"][0]
    assert moles["predicted_class"] in moles["probabilities"]
    assert sum(moles["probabilities"].values()) == pytest.approx(1)
    assert "positive" not in moles
    assert all(row.keys() == {"class", "description", "probability"} for row in moles["top"])
    assert moles.keys() - films.keys() == {"predicted_class", "predicted_class_description", "confidence"}
    assert films.keys() - moles.keys() == {"positive", "thresholds"}


def test_a_bad_image_and_the_counters(client: Any) -> None:
    def counted(verdict: str) -> float:
        line = f'dermalyze_images_total{{verdict="{verdict}"}} '
        return sum(float(row.removeprefix(line)) for row in client.get("/metrics").text.splitlines() if row.startswith(line))

    before = {verdict: counted(verdict) for verdict in ("accept", "caution", "refer", "refused")}
    values = client.post("/v1/predict", files=files(IMAGES[0], b"GIF89a....", IMAGES[1])).json()
    replies.PredictReply.model_validate(values)
    assert ["error" in result for result in values["results"]] == [False, True, False]
    verdicts = [result.get("verdict", "refused") for result in values["results"]]
    assert {v: counted(v) - n for v, n in before.items()} == {v: verdicts.count(v) for v in before}


def test_a_refusal_withholds_the_numbers_until_a_program_asks(artifact_writer: Callable[..., Path], tmp_path: Path) -> None:
    """What the gate refuses is refused whatever the labels say."""
    source = {"source": "ham10000"}  # whose images the gate knows
    folder = artifact_writer(tmp_path / "artifact", training=source, **label_record([0.01] * len(CHEST_LABELS)))
    page = noise()
    made = Service([folder], ServeSpec(decoders=1, threads=1))
    try:
        client = client_of(made)
        result = client.post("/v1/predict", files=files(page)).json()["results"][0]
        asked = client.post("/v1/predict", files=files(page), data={"scores": "true"}).json()["results"][0]
    finally:
        made.close()
    expected = Predictor(folder, threads=1).predict(page, scores=True)
    assert (result["verdict"], result["decision"], result["abstain"]) == ("refer", "refer", True)
    assert result["reasons"] == list(expected.reasons)
    assert result["withheld"] is True
    assert [result[key] for key in ("probabilities", "positive", "top", "operating_points", "flagged")] == [None] * 5
    assert asked["withheld"] is False
    assert asked["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    assert (asked["verdict"], asked["decision"], asked["abstain"]) == ("refer", "refer", True)


def test_the_client_of_the_package(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = package_client(client, monkeypatch)
    result = asked.predict(IMAGES[0], explain=True, of_class="mass")["results"][0]
    assert result["heatmap"]["class"] == "mass"
    assert set(result["positive"]) < set(CHEST_LABELS)
    assert [model["task"] for model in asked.models()] == ["multilabel", "multiclass"]


def test_schemathesis_finds_nothing(service: Service) -> None:
    assert len(drive(service)) >= 8
