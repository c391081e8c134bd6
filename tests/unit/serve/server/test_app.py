"""The API without a socket: its contract, fields, keys, and what schemathesis makes of its OpenAPI."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api import Sink, client_of, drive, files
from mapped import CAM_RECORD, GRADES, graded, mapped_graph
from PIL import Image
from serving import BOUNDARY, FILE, multipart, picture

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
from starlette.testclient import TestClient

from dermalyze.artifact.cam_grade import UNGRADED
from dermalyze.artifact.record import sealed
from dermalyze.config.serve import ServeSpec
from dermalyze.core.result import DISCLAIMER
from dermalyze.errors import ConfigError, UsageError
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.server import replies
from dermalyze.serve.server.app import build_app
from dermalyze.serve.server.logs import Log
from dermalyze.serve.server.refusals import REMEDIES, STATUSES, Refusal
from dermalyze.serve.server.server import _listen, names, read_keys, spec_of
from dermalyze.serve.server.service import Service, metadata_rows
from dermalyze.tasks.base import TASKS


@pytest.fixture(scope="module")
def artifact(artifact_writer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact_writer(tmp_path_factory.mktemp("api") / "artifact")


@pytest.fixture(scope="module")
def service(artifact: Path) -> Iterator[Service]:
    made = Service([artifact], ServeSpec(decoders=1, threads=1, files=4, body_mib=1))
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(service: Service) -> TestClient:
    return client_of(service)


def test_the_answer_is_that_of_the_predictor_and_of_the_contract(client: TestClient, artifact: Path) -> None:
    images = [picture(i, kind=kind) for i, kind in enumerate(("JPEG", "PNG", "WEBP", "BMP"))]
    response = client.post("/v1/predict", files=files(*images))
    assert response.status_code == 200
    values = response.json()
    replies.PredictReply.model_validate(values)
    assert values["disclaimer"] == DISCLAIMER
    predictor = Predictor(artifact, threads=1)
    assert values["model"]["sha256"] == predictor.artifact.sha256
    for i, (image, result) in enumerate(zip(images, values["results"], strict=True)):
        expected = predictor.predict(image)
        assert result["index"] == i
        assert result["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
        assert (result["verdict"], result["reasons"]) == (expected.verdict, list(expected.reasons))
        assert [row["class"] for row in result["top"]] == sorted(
            expected.probabilities, key=lambda c: -expected.probabilities[c]
        )


def test_one_bad_image_among_good_ones_has_its_own_error(client: TestClient) -> None:
    values = client.post("/v1/predict", files=files(picture(), b"GIF89a....", picture(1))).json()
    assert [set(result) >= {"error"} for result in values["results"]] == [False, True, False]
    assert values["results"][1]["index"] == 1
    assert values["results"][1]["error"]["code"] == "not_an_image"
    replies.PredictReply.model_validate(values)
    alone = client.post("/v1/predict", files=files(b"GIF89a...."))
    assert (alone.status_code, alone.json()["error"]["code"]) == (415, "not_an_image")


@pytest.mark.parametrize("address", ["/v1/predict", "/v1/explain"])
@pytest.mark.parametrize("content", [picture(), b"GIF89a...."])
def test_no_reply_and_no_log_names_the_file(service: Service, address: str, content: bytes) -> None:
    client = client_of(service, log=Log(sink := Sink()))  # type: ignore[arg-type]
    response = client.post(address, files=[("file", ("DOE_JOHN.jpg", content))])
    assert "DOE" not in response.text + str(response.headers) + client.get("/metrics").text + sink.text
    assert '"file"' not in response.text
    assert sink.text


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"top_k": "0"}, 422, "bad_field"),
        ({"top_k": "-1"}, 422, "bad_field"),
        ({"top_k": "1e9"}, 422, "bad_field"),
        ({"top_k": "٣"}, 422, "bad_field"),
        ({"explain": "perhaps"}, 422, "bad_field"),
        ({"recipe": "tta"}, 422, "other_recipe"),
        ({"model": "../../etc"}, 422, "bad_field"),
        ({"class": "cat"}, 422, "bad_field"),
        ({"clas": "mel"}, 422, "bad_field"),
        ({"metadata": "{"}, 422, "metadata"),
        ({"metadata": "[{}, {}]"}, 422, "metadata"),
        ({"metadata": '{"age": NaN}'}, 422, "metadata"),
        ({"metadata": '{"age": {"$gt": 0}}'}, 422, "metadata"),
        ({"metadata": '{"age": 5}'}, 422, "metadata"),
        ({"metadata": "[" * 50_000}, 422, "metadata"),
        ({"metadata": "x" * 70_000}, 422, "bad_field"),
    ],
)
def test_fields_that_make_no_sense(client: TestClient, fields: dict[str, str], status: int, code: str) -> None:
    response = client.post("/v1/predict", files=files(picture()), data=fields)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_top_k_class_and_the_models_own_recipe(client: TestClient) -> None:
    response = client.post("/v1/predict", files=files(picture()), data={"top_k": "2", "recipe": "plain", "model": "stand-in"})
    assert len(response.json()["results"][0]["top"]) == 2
    explained = client.post("/v1/explain", files=files(picture()), data={"class": "nv"}).json()["results"][0]
    assert explained["heatmap"] is None
    assert explained["heatmap_note"]


METRICS = {
    "set": "test", "recipe": "plain", "n_images": 40, "n_groups": 30, "level": 0.95,
    "headline": [{"name": "accuracy", "value": 0.8, "low": 0.7, "high": 0.9}],
    "reliability": {"calibrator": "temperature", "bins": [
        {"lower": 0.0, "upper": 0.5, "n": 0, "groups": 0, "confidence": None, "accuracy": None, "low": None, "high": None},
        {"lower": 0.5, "upper": 1.0, "n": 40, "groups": 30, "confidence": 0.7, "accuracy": 0.8, "low": 0.7, "high": 0.9},
    ]},
}  # fmt: skip


def test_a_model_with_maps_and_an_evaluation(artifact_writer: Callable[..., Path], tmp_path: Path) -> None:
    from dermalyze.artifact.artifact import CARD_NAME, METRICS_NAME
    from dermalyze.artifact.edit import with_evaluation

    folder = artifact_writer(tmp_path / "mapped", graph=mapped_graph(), cam=CAM_RECORD)
    files_ = {CARD_NAME: b"# Card\n", METRICS_NAME: json.dumps(METRICS).encode()}
    for name, data in files_.items():
        (folder / name).write_bytes(data)
    record = with_evaluation(json.loads((folder / "artifact.json").read_text()), files_)
    (folder / "artifact.json").write_bytes(sealed(record))
    service = Service([folder], ServeSpec(decoders=1, threads=1))
    try:
        client = client_of(service)
        model = client.get("/v1/models").json()["models"][0]
        assert (model["cam"], model["headline"]["figures"]) == ("closed_form", METRICS["headline"])
        assert client.get("/v1/models/stand-in/card").text == "# Card\n"
        assert client.get("/v1/models/stand-in/card").headers["content-type"].startswith("text/markdown")
        bins = client.get("/v1/models/stand-in/reliability").json()["bins"]
        assert [(row["confidence"], row["accuracy"], row["count"]) for row in bins] == [(0.7, 0.8, 40)]
        for wish in ({}, {"class": "vasc"}):
            values = client.post("/v1/explain", files=files(picture(width=64, height=48)), data=wish).json()
            replies.PredictReply.model_validate(values)
            result = values["results"][0]
            assert result["heatmap"]["class"] == wish.get("class", result["predicted_class"])
            png = Image.open(io.BytesIO(base64.b64decode(result["heatmap"]["png_base64"])))
            assert (png.mode, png.size) == ("RGBA", (64, 48))
        both = client.post("/v1/predict", files=files(picture(0), picture(1)), data={"explain": "true"}).json()["results"]
        assert both[0]["heatmap"]["png_base64"] != both[1]["heatmap"]["png_base64"]
        assert client.post("/v1/predict", files=files(picture())).json()["results"][0]["heatmap"] is None
    finally:
        service.close()


@pytest.mark.parametrize("verdict", [*GRADES, None])
def test_a_heat_map_carries_its_grade(artifact_writer: Callable[..., Path], tmp_path: Path, verdict: str | None) -> None:
    """The grade of the artifact, in both routes and in the client, whichever class is asked for."""
    folder = artifact_writer(tmp_path / "mapped", graph=mapped_graph(), cam=CAM_RECORD)
    if verdict is not None:
        record = folder / "artifact.json"
        record.write_bytes(sealed(graded(json.loads(record.read_text()), verdict)))
    service = Service([folder], ServeSpec(decoders=1, threads=1))
    expected = GRADES[verdict] if verdict is not None else UNGRADED.model_dump()
    assert Predictor(folder, threads=1).artifact.cam_grade.model_dump() == expected
    try:
        client = client_of(service)
        for path, wish in (("explain", {}), ("explain", {"class": "vasc"}), ("predict", {"explain": "true"})):
            values = client.post(f"/v1/{path}", files=files(picture()), data=wish).json()
            replies.PredictReply.model_validate(values)
            assert values["results"][0]["heatmap"]["grade"] == expected
    finally:
        service.close()


def test_rows_of_metadata() -> None:
    assert metadata_rows('[{"age": 1}, {"age": null}]', 2) == [{"age": 1}, {"age": None}]
    with pytest.raises(Refusal):
        metadata_rows('["age"]', 1)


def test_models_and_what_is_not_there(client: TestClient) -> None:
    values = client.get("/v1/models").json()
    replies.ModelsReply.model_validate(values)
    assert [c["name"] for c in values["models"][0]["classes"]] == ["mel", "nv", "vasc"]
    words = {"subject": "lesion", "subjects": "lesions", "background": "skin"}
    assert values["models"][0]["modality"] == {"name": "dermoscopy", "title": "Dermoscopy", "words": words}
    for path in ("/v1/models/stand-in/card", "/v1/models/none/card", "/v1/models/x/reliability", "/nothing", "/docs"):
        response = client.get(path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    wrong = client.get("/v1/predict")
    assert (wrong.status_code, wrong.json()["error"]["code"], wrong.headers["allow"]) == (405, "wrong_method", "POST")


def test_health_and_metrics_have_bounded_labels(client: TestClient) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for i in range(30):
        client.get(f"/nowhere/{i}")
        client.request(f"M{i}", "/v1/models")
    text = client.get("/metrics").text
    assert "nowhere" not in text
    assert len({line.partition("}")[0] for line in text.splitlines() if line.startswith("dermalyze_requests_total")}) < 30


def test_keys(service: Service) -> None:
    guarded = client_of(service, keys=("0123456789abcdef", "fedcba9876543210"))
    for headers in ({}, {"Authorization": "Bearer 0123456789abcdeX"}, {"X-API-Key": "é" * 16}, {"Authorization": "Basic x"}):
        response = guarded.post("/v1/predict", files=files(picture()), headers={k: v.encode() for k, v in headers.items()})
        assert (response.status_code, response.json()["error"]["code"]) == (401, "key_needed")
        assert response.headers["www-authenticate"] == "Bearer"
    for headers in ({"Authorization": "Bearer 0123456789abcdef"}, {"X-API-Key": "fedcba9876543210"}):
        assert guarded.post("/v1/predict", files=files(picture()), headers=headers).status_code == 200
    assert guarded.get("/v1/models").status_code == 401
    assert guarded.get("/metrics").status_code == 401
    assert guarded.get("/v2/health/live").status_code == 200
    assert guarded.get("/openapi.json").json()["security"] == [{"key": []}]


def test_reading_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("0123456789abcdef\n\n")
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod"):
        read_keys(path, {})
    path.chmod(0o600)
    assert read_keys(path, {}) == ["0123456789abcdef"]
    path.write_text("short")
    with pytest.raises(UsageError, match="shorter"):
        read_keys(path, {})
    path.write_text("\n")
    with pytest.raises(UsageError, match="no key"):
        read_keys(path, {})
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(tmp_path / "none", {})
    assert read_keys(None, {}) == []


def test_hosts_and_origins(service: Service) -> None:
    other = client_of(service, hosts=("clinic.example", "[::1]"), origins=("https://app.example",))
    for host, status in (
        ("clinic.example", 200),
        ("CLINIC.example:8000", 200),
        ("[::1]:9", 200),
        ("localhost", 400),
        ("", 400),
    ):
        assert other.get("/v1/models", headers={"Host": host}).status_code == status
    assert other.get("/v2/health/live", headers={"Host": "10.0.0.7"}).status_code == 200
    for origin, status in (
        ("https://app.example", 200),
        ("null", 403),
        ("http://clinic.example", 200),
        ("http://clinic.example.evil", 403),
    ):
        headers = {"Host": "clinic.example", "Origin": origin}
        assert other.post("/v1/predict", files=files(picture()), headers=headers).status_code == status
    assert client_of(service, hosts=("*",)).get("/v1/models", headers={"Host": "anything"}).status_code == 200


def test_a_failure_that_nobody_foresaw_says_nothing_of_itself(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Sink()
    broken = client_of(service, log=Log(sink))  # type: ignore[arg-type]
    monkeypatch.setattr(service, "models", lambda: (_ for _ in ()).throw(KeyError("DOE JOHN")))
    response = broken.get("/v1/models")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
    assert "DOE" not in response.text + sink.text
    assert '"kind": "KeyError"' in sink.text


def test_a_variable_of_the_environment_sends_nothing_elsewhere(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    fastapi = pytest.importorskip("fastapi", minversion="0.160")
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    assert fastapi.FastAPI()._telemetry["auto_configure"], "what is to be prevented"
    assert not any(build_app(service).app._telemetry.values())  # type: ignore[attr-defined]


def test_answers_leave_at_once() -> None:
    async def delayed() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        class Look(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                found.set_result(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        listening = _listen("127.0.0.1", 0)
        async with await asyncio.get_running_loop().create_server(Look, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            writer.close()
            return await found

    assert asyncio.run(delayed()) == 1, "Nagle's algorithm is off, or the second half of an answer waits 40 ms for the first"


def test_every_code_has_a_status_and_a_remedy() -> None:
    assert STATUSES.keys() == REMEDIES.keys()
    assert all(400 <= status < 600 for status in STATUSES.values())


@pytest.mark.parametrize(
    "values", [{"port": 70_000}, {"queue": -1}, {"hosts": ("a b",)}, {"origins": ("evil",)}, {"deadline_s": 0.0}, {"host": ""}]
)
def test_options_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises((UsageError, ConfigError)):
        spec_of(values)


def test_names_of_the_server() -> None:
    assert "0.0.0.0" not in names(ServeSpec(host="0.0.0.0"))
    assert "[::2]" in names(ServeSpec(host="::2"))
    assert "clinic.example" in names(ServeSpec(hosts=("clinic.example",)))


def test_two_models_of_one_name_are_refused(artifact: Path) -> None:
    with pytest.raises(UsageError, match="two models"):
        Service([artifact, artifact], ServeSpec(threads=1))
    with pytest.raises(UsageError, match="no model"):
        Service([], ServeSpec())


def test_openapi_has_examples_that_fit_it(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    for path, mapped in (("predict", False), ("explain", True)):
        examples = schema["paths"][f"/v1/{path}"]["post"]["responses"]["200"]["content"]["application/json"]["examples"]
        assert examples.keys() == TASKS.keys()
        for example in examples.values():
            assert (replies.PredictReply.model_validate(example["value"]).results[0].heatmap is not None) == mapped
    grade = schema["components"]["schemas"]["MapGrade"]
    assert set(grade["required"]) == set(GRADES["better"])
    assert "multipart/form-data" in schema["paths"]["/v1/explain"]["post"]["requestBody"]["content"]
    assert all("cdn" not in json.dumps(part) for part in schema["paths"].values())


def test_bodies_of_any_chunking_are_read_alike(client: TestClient) -> None:
    body = multipart((FILE, picture()), ('name="top_k"', b"1"))
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    whole = client.post("/v1/predict", content=body, headers=headers).json()
    for size in (1, 7, 1000):
        pieces = (body[i : i + size] for i in range(0, len(body), size))
        assert client.post("/v1/predict", content=pieces, headers=headers).json() == whole


def test_schemathesis_finds_nothing(service: Service) -> None:
    assert len(drive(service)) >= 8


def test_schemathesis_would_find_a_failure(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "models", lambda: {"models": [{"name": 7}]})
    with pytest.raises(pytest.importorskip("schemathesis.core.failures").FailureGroup):
        drive(service)
