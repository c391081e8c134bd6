"""The client refuses what it cannot send, before it asks, and shows no secret."""

from __future__ import annotations

import pytest

from dermalyze.errors import DataError, ResourceError, UsageError
from dermalyze.serve.server.client import Client

HERE = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "address", ["http://[::1", "http://a b", "http://127.0.0.1:99999", "http://x:y", "http://x/\u00e9", ""]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="no address of a server"):
        Client(address)


@pytest.mark.parametrize("key", ["secret\n", "secret\r\nX: y", "secr\u00e9t\u03b1"])
def test_a_key_that_no_header_carries_is_not_shown(key: str) -> None:
    with pytest.raises(UsageError, match="strip it") as caught:
        Client(HERE, key=key)
    assert key.strip() not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_no_time(seconds: float) -> None:
    with pytest.raises(UsageError, match="timeout_s"):
        Client(HERE, timeout_s=seconds)


def test_no_answer_shows_no_password() -> None:
    with pytest.raises(ResourceError, match=r"^127\.0\.0\.1:1: no answer") as caught:
        Client("http://name:secret@127.0.0.1:1").models()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("image", ["missing.jpg", ".", "a\0b", 7])
def test_an_image_that_cannot_be_read(image: object) -> None:
    with pytest.raises(DataError, match="an image cannot be read"):
        Client(HERE).predict([image])  # type: ignore[list-item]
