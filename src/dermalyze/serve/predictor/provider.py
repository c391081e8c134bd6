"""What computes the network: ONNX Runtime, or OpenVINO where that is installed, agrees and is faster here."""

# Shapes: B images, H height, W width, C classes, D width of the embedding.

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.graph import ANSWERS, CAM, GRAPH_NAME, Answer, Floats
from dermalyze.artifact.onnx_prune import prune
from dermalyze.artifact.onnx_session import brief
from dermalyze.artifact.self_test import IMAGES, SEED, TOLERANCE, reference_images
from dermalyze.core.machine import pass_threads
from dermalyze.core.progress import say
from dermalyze.errors import MissingExtraError, ModelError, UsageError
from dermalyze.imaging.samples import IMAGE, Array, take

Provider = Literal["auto", "onnxruntime", "openvino"]
PROVIDERS: tuple[Provider, ...] = ("auto", "onnxruntime", "openvino")
PASSES = 5  # timed, one image each; the fastest counts
GAIN = 1.05  # less is not worth another library


def choose_provider(artifact: Artifact, folder: Path, provider: str, threads: int | None = None) -> str:
    """Have the asked or the faster library compute the artifact's answers; says in one line what came of `auto`.

    OpenVINO is taken only where its probabilities for the reference images are ONNX Runtime's within `TOLERANCE`.

    Args:
        artifact: opened; its graph is changed.
        folder: where it lies; the graph is read once more, and must be the same.
        provider: "onnxruntime"; "openvino"; or "auto": measured here, a few passes of each.
        threads: CPU threads of one pass; None: one per core.

    Returns:
        "onnxruntime" or "openvino".

    Raises:
        UsageError: no such provider.
        MissingExtraError: "openvino" is asked for and not installed.
        ModelError: "openvino" is asked for and refuses the graph, or gives other numbers.
    """
    if provider not in PROVIDERS:
        raise UsageError(f"provider '{provider}' is not one of {', '.join(PROVIDERS)}")
    if provider == "onnxruntime":
        return provider
    try:
        data = (folder / GRAPH_NAME).read_bytes()
        if hashlib.sha256(data).hexdigest() != artifact.model_sha256:
            raise ModelError(f"{GRAPH_NAME}: changed while it was opened; open it again")
        answer = open_openvino(prune(data, [CAM], GRAPH_NAME), threads)
        difference = _difference(artifact, answer)
    except (MissingExtraError, ModelError) as error:
        if provider == "openvino":
            raise
        if not isinstance(error, MissingExtraError):
            say(f"provider: onnxruntime; openvino cannot be used here: {error}")
        return "onnxruntime"
    if not difference <= TOLERANCE:
        said = f"openvino's probabilities differ by {difference:.1e} (allowed {TOLERANCE:.0e})"
        if provider == "openvino":
            raise ModelError(f"provider: {said}; use onnxruntime")
        say(f"provider: onnxruntime; {said}")
        return "onnxruntime"
    if provider == "auto":
        seconds = {name: _fastest(artifact, way) for name, way in (("onnxruntime", None), ("openvino", answer))}
        chosen = "openvino" if seconds["openvino"] * GAIN < seconds["onnxruntime"] else "onnxruntime"
        times = ", ".join(f"{name} {1000 * taken:.1f} ms" for name, taken in seconds.items())
        say(f"provider: {chosen} ({times} an image)")
        if chosen == "onnxruntime":
            return chosen
    artifact.graph.answer_by("openvino", answer)
    return "openvino"


def open_openvino(data: bytes, threads: int | None) -> Answer:
    """A graph compiled by OpenVINO for this processor, in 32-bit arithmetic.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ModelError: it refuses the graph.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # a model's use is nobody else's business
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("--provider openvino", "openvino") from error
    try:
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        more = {"INFERENCE_NUM_THREADS": pass_threads(threads)}
        compiled = openvino.Core().compile_model(openvino.Core().read_model(data, b""), "CPU", {**settings, **more})
    except Exception as error:  # its exceptions have no base of their own
        raise ModelError(f"{GRAPH_NAME}: openvino refuses it: {brief(error)}; use onnxruntime") from error

    def answer(names: tuple[str, ...], inputs: dict[str, NDArray[Any]]) -> list[Floats]:
        request = compiled.create_infer_request()  # one per call: requests are not shared between threads
        found = request.infer(inputs)
        return [np.array(found[name], dtype=np.float32) for name in names]

    return answer


def _batch(artifact: Artifact, count: int) -> dict[str, Array]:
    image = next(one for one in artifact.inputs if one.name == IMAGE)
    return artifact.complete(reference_images(SEED, count, image))


def _difference(artifact: Artifact, answer: Answer) -> float:
    """Largest difference of a probability from ONNX Runtime's, over the reference images together and alone."""
    samples, differences = _batch(artifact, IMAGES), []
    probabilities = artifact.answering.task.probabilities
    for batch in (samples, take(samples, slice(1))):
        try:
            (logits_BC,) = answer(("logits",), batch)
        except Exception as error:
            raise ModelError(f"{GRAPH_NAME}: openvino fails on it: {brief(error)}; use onnxruntime") from error
        differences.append(np.abs(probabilities(logits_BC) - probabilities(artifact.run(batch)[0])).max())
    return float(np.max(differences))  # NaN where one is: it is not at most the tolerance


def _fastest(artifact: Artifact, answer: Answer | None) -> float:
    """Seconds of the fastest of a few passes of one image."""
    batch = _batch(artifact, 1)

    def one() -> object:
        return artifact.run(batch) if answer is None else answer(ANSWERS, batch)

    one()
    taken = []
    for _ in range(PASSES):
        started = time.perf_counter()
        one()
        taken.append(time.perf_counter() - started)
    return min(taken)
