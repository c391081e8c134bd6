"""Why a request is not answered: one exception, one body, and the words of each reason."""

from __future__ import annotations

import json
from typing import Any

STATUSES = {
    "bad_request": 400, "bad_multipart": 400, "too_many_parts": 400, "bad_host": 400, "ambiguous_length": 400,
    "key_needed": 401, "other_origin": 403, "not_found": 404, "wrong_method": 405, "too_slow": 408,
    "too_large": 413, "long_url": 414, "not_multipart": 415, "encoded_body": 415, "not_an_image": 415,
    "undecodable": 422, "bad_field": 422, "no_file": 422, "too_many_files": 422, "other_recipe": 422, "metadata": 422,
    "long_headers": 431, "internal": 500, "busy": 503, "model_fault": 503, "too_late": 504,
}  # fmt: skip
"""Every code of an error body, with its HTTP status."""

REMEDIES = {
    "bad_request": "send a plain HTTP/1.1 request",
    "bad_multipart": "send multipart/form-data as a browser or an HTTP library writes it",
    "too_many_parts": "send fewer images a request",
    "bad_host": "call the server by one of its names, or start it with --allow-host NAME",
    "ambiguous_length": "send either Content-Length or Transfer-Encoding",
    "key_needed": "send the header 'Authorization: Bearer KEY'",
    "other_origin": "use the server's own page, or start it with --allow-origin",
    "not_found": "see /openapi.json for what there is",
    "wrong_method": "see /openapi.json for what there is",
    "too_slow": "send the request faster",
    "too_large": "send fewer or smaller images",
    "long_url": "nothing here takes a long address",
    "not_multipart": "send multipart/form-data with the field 'file'",
    "encoded_body": "send the body as it is, without Content-Encoding",
    "not_an_image": "send a JPEG, PNG, WebP, AVIF or BMP file",
    "undecodable": "open the image and save it again, upright and at an ordinary size",
    "bad_field": "see /openapi.json for the fields and their values",
    "no_file": "send at least one image in the field 'file'",
    "too_many_files": "send fewer images a request",
    "other_recipe": "leave 'recipe' out",
    "metadata": "see /v1/models for what the model takes",
    "long_headers": "send fewer or shorter headers",
    "internal": "tell whoever runs the server; its log has the request's number",
    "busy": "try again after the seconds in Retry-After",
    "model_fault": "tell whoever runs the server; the model gave no usable numbers",
    "too_late": "try again, or send fewer images a request",
}


class Refusal(Exception):
    """A request, or one image of it, that is refused.

    Args:
        code: a key of `STATUSES`.
        message: what is wrong, one line without a file name or content.
        headers: further ones of the response.

    >>> Refusal("busy", "9 requests are under way").status
    503
    """

    def __init__(self, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.headers = code, message, headers or {}

    @property
    def status(self) -> int:
        """Of the HTTP response."""
        return STATUSES[self.code]

    @property
    def words(self) -> dict[str, str]:
        """`code`, `message` and `remedy`."""
        return {"code": self.code, "message": self.message, "remedy": REMEDIES[self.code]}

    @property
    def body(self) -> bytes:
        """The JSON of the response."""
        return encode({"error": self.words})


def encode(values: Any) -> bytes:
    """JSON of an answer. NaN and infinity are refused: they are no numbers that anybody may read.

    >>> encode({"a": 1})
    b'{"a":1}'
    """
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
