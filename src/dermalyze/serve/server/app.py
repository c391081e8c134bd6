"""The routes: what may be asked, in the words of OpenAPI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from dermalyze.artifact.cam_grade import EXAMPLE
from dermalyze.core.result import DISCLAIMER
from dermalyze.serve.server import replies
from dermalyze.serve.server.guard import REFUSE, Guard
from dermalyze.serve.server.logs import Log
from dermalyze.serve.server.refusals import STATUSES, Refusal, encode
from dermalyze.serve.server.service import Service

WEB = Path(__file__).parents[1] / "web"
"""The page, where it is installed."""
DESCRIPTION = (
    f"Answers for medical images. {DISCLAIMER} Nothing that is sent is stored. Every refusal has the body of `ErrorReply`."
)
UNTOLD: Any = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)
"""FastAPI's own telemetry, which a variable of the environment could send elsewhere with what a request held."""
_IMAGES = "Images: JPEG, PNG, WebP, AVIF, BMP; HEIC and DICOM with their extras."
_BINARY = {"type": "string", "format": "binary"}
_PROPERTIES: dict[str, Any] = {
    "file": {"type": "array", "items": _BINARY, "minItems": 1, "description": _IMAGES},
    "image_2": {
        "type": "array", "items": _BINARY,
        "description": "The second image of each sample, for a model of two (`optional_images` of /v1/models): one per file, "
        "empty for a sample without one.",
    },
    "metadata": {
        "type": "string",
        "description": "JSON: an object of column to value for all images, or a list, one per image. See /v1/models.",
        "example": '{"age": 55, "sex": "female"}',
    },
    "top_k": {"type": "integer", "minimum": 1, "maximum": 999999, "description": "How many are ranked; default: all."},
    "explain": {"type": "boolean", "default": False, "description": "Whether a heat map is made."},
    "scores": {
        "type": "boolean", "default": False,
        "description": "For programs: give class and probabilities of refused images too. They are no result; never show them.",
    },
    "recipe": {"type": "string", "description": "Must be the model's own: a recipe without its calibration is not served."},
    "model": {"type": "string", "description": "Default: the first of /v1/models."},
    "class": {"type": "string", "description": "Class or label of the heat map; default: the first of the answer."},
}  # fmt: skip
_EXAMPLE: dict[str, Any] = {
    "model": {"name": "ham10000", "sha256": "5f0c" * 16, "recipe": "flips", "calibrated": True},
    "results": [
        {
            "index": 0,
            "flagged": [],
            "operating_points": [
                {
                    "name": "malignant",
                    "title": "malignant",
                    "classes": ["mel"],
                    "probability": 0.1,
                    "positive": False,
                    "threshold": 0.12,
                    "target": 0.95,
                    "sensitivity": {"value": 0.94, "low": 0.89, "high": 0.98, "n": 167, "groups": 92},
                    "specificity": {"value": 0.61, "low": 0.58, "high": 0.64, "n": 1335, "groups": 1028},
                    "note": "",
                }
            ],
            "withheld": False,
            "predicted_class": "nv",
            "predicted_class_description": "Melanocytic nevi",
            "confidence": 0.9,
            "probabilities": {"mel": 0.1, "nv": 0.9},
            "top": [{"class": "nv", "description": "Melanocytic nevi", "probability": 0.9}],
            "top_predictions": [{"class": "nv", "description": "Melanocytic nevi", "probability": 0.9}],
            "calibrated": True,
            "prediction_set": ["nv"],
            "decision": "answer",
            "verdict": "accept",
            "reasons": [],
            "abstain": False,
            "quality": {
                "verdict": "accept",
                "checks": [
                    {"name": "sharpness", "value": 41.0, "limit": 9.0, "ok": True, "words": "sharpness is within its limit"}
                ],
            },
            "modality": {
                "verdict": "accept",
                "score": 2.9,
                "words": "colors and contrast are those of the training images",
            },
            "ood": {"score": 0.21, "threshold": 0.46, "ok": True},
            "heatmap": None,
            "notes": [],
            "metadata_unknown": None,
        }
    ],
    "disclaimer": DISCLAIMER,
}
_HEATMAP = {
    "png_base64": "iVBORw0KGgo=",
    "class": "nv",
    "method": "class-activation map",
    "signed": False,
    "grade": EXAMPLE.model_dump(),
}
_LABELS: dict[str, Any] = {
    "positive": ["effusion"],
    "thresholds": {"effusion": 0.35, "mass": 0.5},
    "probabilities": {"effusion": 0.7, "mass": 0.4},
    "top": [
        {"class": "effusion", "description": "Effusion", "probability": 0.7, "threshold": 0.35, "positive": True},
        {"class": "mass", "description": "Mass", "probability": 0.4, "threshold": 0.5, "positive": False},
    ],
    "top_predictions": None,
    "prediction_set": None,
    "operating_points": [],
}
"""What differs in the answer of a model of several labels."""
_CLASS_ALONE = ("predicted_class", "predicted_class_description", "confidence")


def _examples(heatmap: dict[str, Any] | None = None) -> dict[str, Any]:
    """An answer of each task, under its name, with a heat map or without."""
    one: dict[str, Any] = {**_EXAMPLE["results"][0], "heatmap": heatmap}
    labels = {key: value for key, value in one.items() if key not in _CLASS_ALONE} | _LABELS
    if heatmap is not None:
        labels["heatmap"] = {**heatmap, "class": "effusion"}
    words = {"multiclass": ("One class per image", one), "multilabel": ("Any number of labels", labels)}
    return {kind: {"summary": summary, "value": {**_EXAMPLE, "results": [result]}} for kind, (summary, result) in words.items()}


def build_app(
    service: Service,
    *,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    keys: Sequence[str] = (),
    log: Log | None = None,
) -> Guard:
    """The whole application.

    Args:
        service: that answers.
        hosts: names under which it may be called; `*`: every one.
        origins: other origins that may post.
        keys: of which one must be shown; none: nobody needs one.
        log: told of every request.
    """
    app = FastAPI(
        title="dermalyze", version=metadata.version("dermalyze"), description=DESCRIPTION, docs_url=None, redoc_url=None,
        openapi_url="/openapi.json", telemetry=UNTOLD,
    )  # fmt: skip
    _routes(app, service)
    _page(app)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _refused)
    _describe_keys(app, bool(keys))
    log = log or Log()
    return Guard(app, hosts=hosts, origins=origins, keys=keys, measured=service.measured, log=log, room=service.check_room)


def _routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/predict", **_documented("Answers for one or several images", _PROPERTIES, _examples()))
    async def predict(request: Request) -> Response:
        """One answer an image. A bad one among several has an `error` in its place; a bad single one is refused as a whole."""
        return _json(await service.predict(request.receive, _headers(request)))

    one = {**_PROPERTIES, "file": {**_BINARY, "description": "One image."}}
    del one["explain"]

    @app.post("/v1/explain", **_documented("The answer for one image, with a heat map", one, _examples(heatmap=_HEATMAP)))
    async def explain(request: Request) -> Response:
        """As `/v1/predict` with `explain`, of one image."""
        return _json(await service.predict(request.receive, _headers(request), explain=True))

    @app.get("/v1/models", response_model=replies.ModelsReply, responses=_errors(400, 401), tags=["models"])
    async def models() -> Response:
        """The models that answer here: task, classes or labels with their thresholds, metadata they take, identity."""
        return _json(service.models())

    text: dict[int | str, dict[str, Any]] = {200: {"content": {"text/markdown": {"schema": {"type": "string"}}}}}

    @app.get("/v1/models/{name}/card", response_class=Response, responses=text | _errors(400, 401, 404), tags=["models"])
    async def card(name: str) -> Response:
        """The model's card."""
        if not (words := service.predictor(name).artifact.card):
            raise Refusal("not_found", "this model's artifact holds no card; it gets one when its run is evaluated")
        return Response(words, media_type="text/markdown")

    @app.get("/v1/models/{name}/reliability", response_class=Response, responses=_errors(400, 401, 404), tags=["models"])
    async def reliability(name: str) -> Response:
        """How often the model is right, by the probability that it gave; of task `multilabel` for each label."""
        if (metrics := service.predictor(name).artifact.metrics) is None:
            raise Refusal("not_found", "this model's artifact holds no reliability diagram; evaluate its run first")
        return _json(replies.reliability_reply(metrics))

    @app.get("/v2/health/live", response_model=replies.Health, response_model_exclude_none=True, tags=["health"])
    async def live() -> Response:
        """Whether the process answers at all."""
        return _json({"live": True})

    @app.get(
        "/v2/health/ready", response_model=replies.Health, response_model_exclude_none=True, tags=["health"],
        responses={503: {"model": replies.Health, "description": "Not ready"}},
    )  # fmt: skip
    async def ready() -> Response:
        """Whether it can answer for images."""
        return _json({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/metrics", response_class=Response, tags=["health"])
    async def metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(service.measured.text(), media_type="text/plain; version=0.0.4")


def _page(app: FastAPI) -> None:
    if not (WEB / "index.html").is_file():
        return
    page = (WEB / "index.html").read_bytes()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(page, media_type="text/html")

    app.mount("/static", StaticFiles(directory=WEB), name="static")


def _headers(request: Request) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}


def _json(values: Any, status: int = 200) -> Response:
    try:
        body = encode(values)
    except ValueError:
        raise Refusal("model_fault", "the answer holds a number that is none") from None
    return Response(body, status, media_type="application/json")


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    codes = {status: sorted(code for code, s in STATUSES.items() if s == status) for status in statuses}
    return {status: {"model": replies.ErrorReply, "description": ", ".join(codes[status])} for status in statuses}


def _documented(summary: str, properties: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    """What FastAPI is told of a route that reads its multipart body itself."""
    schema = {"type": "object", "properties": properties, "required": ["file"], "additionalProperties": False}
    body = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    good: dict[int | str, dict[str, Any]] = {
        200: {"model": replies.PredictReply, "content": {"application/json": {"examples": examples}}}
    }
    return {
        "summary": summary,
        "response_model": replies.PredictReply,
        "responses": good | _errors(400, 401, 403, 408, 413, 415, 422, 503, 504),
        "openapi_extra": {"requestBody": body},
        "tags": ["answers"],
    }


def _describe_keys(app: FastAPI, needed: bool) -> None:
    if not needed:
        return
    made: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        schema = made()
        schema.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


class Refused(Response):
    """A refusal, answered by the guard, which knows whether more of the request is to come."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(status_code=refusal.status)
        self.refusal = refusal

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI's."""
        await scope[REFUSE](self.refusal, receive)


async def _refused(request: Request, error: Exception) -> Response:
    return Refused(error if isinstance(error, Refusal) else Refusal("internal", "the server failed on this request"))


async def _invalid(request: Request, error: Exception) -> Response:
    return Refused(Refusal("bad_field", "a part of the address is not what it must be"))


async def _http(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    allow = {k: v for k, v in (getattr(error, "headers", None) or {}).items() if k.lower() == "allow"}
    code = {404: "not_found", 405: "wrong_method"}.get(status, "bad_request")
    words = {"not_found": "there is nothing at this address", "wrong_method": "this address does not take that method"}
    return Refused(Refusal(code, words.get(code, "the request is not understood"), allow))
