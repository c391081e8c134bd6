"""Named weights from timm's hub."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from dermalyze.errors import ModelError
from dermalyze.models.weights import read_tensors

HUB_FILE = "model.safetensors"
HUB_TIMEOUT_S = 10.0


@contextlib.contextmanager
def no_missing_weights(name: str) -> Iterator[None]:
    """Refuse a network that timm filled only in part: it says so in its log, and continues with random numbers."""
    missing: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if text.startswith("Missing keys") or "random init" in text:
                missing.append(text)

    logger, listener = logging.getLogger("timm.models._builder"), Listener()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate
    if missing:
        raise ModelError(f"model.pretrained: the weights of {name} do not fill this network: {missing[0]}; remove model.kwargs")


def hub_weights(name: str, hub_id: str | None, near: str | None) -> Path:
    """The local path of a network's weights from the hub: its cache, else one download; only safetensors.

    Args:
        name: of the network, for messages.
        hub_id: its repository, with `@revision` where timm names one; None: there is none.
        near: a network of the same family that has weights, to be named where this one has none.

    Raises:
        ModelError: there are none, or the hub cannot be reached.
    """
    remedy = "give a local file with model.weights, or train from random weights with model.pretrained: false"
    if not hub_id:
        other = f" (those of {near} are)" if near else ""
        raise ModelError(f"model.pretrained: no weights of {name} are on timm's hub{other}; {remedy}")
    repository, _, revision = hub_id.partition("@")
    path = hub_file(repository, HUB_FILE, key="model.pretrained", remedy=remedy, revision=revision or None, of=name)
    read_tensors(path)
    return path


def hub_file(repository: str, file: str, *, key: str, remedy: str, revision: str | None = None, of: str = "") -> Path:
    """One file of a repository of the hub: from its cache, else one download.

    Args:
        repository: `owner/name`.
        file: its name there; weights are asked for as safetensors only.
        key: of the configuration, for messages.
        remedy: for messages.
        revision: default: the newest.
        of: the network, for messages; default: the repository.

    Raises:
        ModelError: there is no such file, or the hub cannot be reached.
    """
    import huggingface_hub as hub

    try:
        cached = hub.try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        # ask once before the download, which would ask for half a minute
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, file, revision=revision), timeout=HUB_TIMEOUT_S)
        return Path(hub.hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # the hub's client raises errors of several libraries, other ones in each version
        if type(error).__name__ in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
            problem = f"{repository} has no {file}, and pickles are not loaded"
        else:
            whose = f"the weights of {of} ({file} of {repository})" if of else f"{file} of {repository}"
            problem = f"cannot reach {whose} on the hub: {type(error).__name__}: {error}"
        raise ModelError(f"{key}: {problem}; {remedy}") from error
