"""What the server counts: few names, and labels of which there is a fixed number."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

ROUTES = (
    "/", "/static", "/v1/predict", "/v1/explain", "/v1/models", "/v1/models/{name}/card", "/v1/models/{name}/reliability",
    "/v2/health/live", "/v2/health/ready", "/metrics", "/openapi.json",
)  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH")


class Measured:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "dermalyze_requests", "Requests answered.", ["route", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "dermalyze_request_seconds", "From a request's headers to its answer.", ["route"], registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )  # fmt: skip
        self.images = Counter("dermalyze_images", "Images answered, by verdict.", ["verdict"], registry=self.registry)
        self.refusals = Counter("dermalyze_refusals", "Requests refused, by reason.", ["code"], registry=self.registry)
        self.faults = Counter("dermalyze_model_faults", "Answers that the model did not give.", registry=self.registry)
        self.lost = Counter(
            "dermalyze_decoders_replaced", "Decoding processes that had to be replaced.", registry=self.registry
        )
        self.under_way = Gauge(
            "dermalyze_requests_under_way", "Requests admitted and not yet answered.", registry=self.registry
        )

    def model_fault(self) -> None:
        """Count an answer that the model did not give."""
        self.faults.inc()

    def lost_decoder(self) -> None:
        """Count a process that was replaced."""
        self.lost.inc()

    def request(self, path: str, method: str, status: int, seconds: float) -> str:
        """Count a request; gives its route."""
        route = route_of(path)
        self.requests.labels(route, method if method in METHODS else "other", str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        return route

    def text(self) -> bytes:
        """Prometheus' text."""
        return bytes(generate_latest(self.registry))


def route_of(path: str) -> str:
    """The template of a path, of `ROUTES`, or "other".

    >>> route_of("/v1/models/first/card"), route_of("/v1/models/../../etc")
    ('/v1/models/{name}/card', 'other')
    """
    if path in ROUTES:
        return path
    steps = path.split("/")
    if steps[:3] == ["", "v1", "models"] and len(steps) == 5 and steps[4] in ("card", "reliability"):
        return f"/v1/models/{{name}}/{steps[4]}"
    return "/static" if path.startswith("/static/") else "other"
