"""An ONNX graph, opened to be run on the CPU; its bytes are looked at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dermalyze.artifact.onnx_scan import refuse_unsafe
from dermalyze.core.machine import pass_threads
from dermalyze.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime


def open_session(data: bytes, name: str, *, threads: int | None, remedy: str) -> onnxruntime.InferenceSession:
    """Open a self-contained graph.

    Args:
        data: the bytes of the file.
        name: of the file, for messages.
        threads: CPU threads of one pass; None: one per core.
        remedy: what to do where it is refused, for the message.

    Raises:
        ModelError: not ONNX, external data, an operator that is not let through.

    >>> open_session(b"PK not a graph", "model.onnx", threads=1, remedy="export again")
    Traceback (most recent call last):
    ...
    dermalyze.errors.ModelError: model.onnx: ...
    """
    refuse_unsafe(data, name)
    import onnxruntime  # here, not above: it takes longer than everything else that is imported to predict

    onnxruntime.disable_telemetry_events()  # where it was imported before this package, which turns the whole of it off
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = pass_threads(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never guessed from the bytes
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        raise ModelError(f"{name}: onnxruntime refuses it: {brief(error)}; {remedy}") from error


def brief(error: Exception) -> str:
    """An error of another library in one line of at most 300 characters.

    >>> brief(ValueError("a\\n  b"))
    'a b'
    """
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
