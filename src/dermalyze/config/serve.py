"""Settings of a server: its address and its limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dermalyze.config.base import Spec

Host = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^(\*|[A-Za-z0-9_.:\[\]-]+)$")]
Origin = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9_.:\[\]-]+$")]


class ServeSpec(Spec):
    """Where a server listens, its limits, and the operating point of its models. Nothing here changes a probability.

    Attributes:
        host: address to listen on; the default is reached from this machine alone.
        port: 0 takes a free one.
        hosts: further names under which it may be called (the Host header); `*` allows every name.
        origins: pages elsewhere that may post to it, as `https://clinic.example`; by default only its own page.
        queue: requests that may wait while one is answered; the next is refused with 503.
        batch: images of one pass of the network, of waiting requests together.
        files: images of one request.
        body_mib: of one request.
        pixels: of one image, width times height.
        deadline_s: from a request's last byte to its answer, after which it is given up with 504.
        slow_s: for a request's headers, for a body to begin to flow, and for an answer to be taken.
        drain_s: for requests under way when the server is told to stop.
        decoders: processes that decode images.
        decoder_mib: memory of one of them, above what it starts with.
        threads: of one pass of the network; None: half of the cores. Two passes run at once where the cores suffice.
        sensitivity: at which of its measured operating points a model is served; None: its first.
        provider: what computes the network; see `Predictor`.
    """

    host: Host = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    hosts: tuple[Host, ...] = ()
    origins: tuple[Origin, ...] = ()
    queue: int = Field(8, ge=0, le=10_000)
    batch: int = Field(8, ge=1, le=256)
    files: int = Field(32, ge=1, le=1000)
    body_mib: int = Field(32, ge=1, le=1024)
    pixels: int = Field(25_000_000, ge=64, le=64_000_000)
    deadline_s: float = Field(30.0, gt=0, le=3600)
    slow_s: float = Field(8.0, gt=0, le=600)
    drain_s: int = Field(15, ge=0, le=600)
    decoders: int = Field(2, ge=1, le=64)
    decoder_mib: int = Field(512, ge=64, le=16_384)
    threads: int | None = Field(None, ge=1, le=1024)
    sensitivity: float | None = Field(None, gt=0, lt=1)
    provider: Literal["onnxruntime", "openvino", "auto"] = "onnxruntime"
