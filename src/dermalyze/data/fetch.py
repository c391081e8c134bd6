"""Downloads of supported data sets: confirmed, resumable and checked."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermalyze.core.archives import name_problem
from dermalyze.core.atomic import sha256_file, write_json
from dermalyze.core.progress import say
from dermalyze.data.catalog import REMOTE_SETS, RemoteFile, RemoteSet
from dermalyze.data.download import download, explain_failure, md5_file, open_url, shown_size
from dermalyze.errors import DataError, ResourceError, UsageError, nearest

RECORD = "fetched.json"
_MAX_INDEX_BYTES = 32 * 2**20


@dataclass(frozen=True)
class FetchResult:
    """What was fetched.

    Attributes:
        name: of the data set.
        folder: where it lies.
        remote: size, license, citation, and the steps where a person has to do it.
        files: {name, bytes, sha256, checked (against a published checksum), fresh (downloaded now)} each.
    """

    name: str
    folder: Path
    remote: RemoteSet
    files: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        told = {key: getattr(self.remote, key) for key in ("title", "license", "citation", "page")}
        return {
            "name": self.name,
            "folder": str(self.folder),
            **told,
            "files": list(self.files),
            "steps": list(self.remote.steps),
        }

    def lines(self) -> list[str]:
        """Lines for a person."""
        if not self.files:
            steps = [f"  {i}. {step}" for i, step in enumerate(self.remote.steps, 1)]
            return [*card(self.remote), "this data set needs a manual download:", *steps]
        how = {True: "matches the published checksum", False: "no checksum is published; its SHA-256 is in fetched.json"}
        return [
            *(
                f"{f['name']}: {shown_size(f['bytes'])}, {'' if f['fresh'] else 'was there, '}{how[f['checked']]}"
                for f in self.files
            ),
            f"{self.folder}: set data.source.kind to {self.name} and data.path to this folder",
        ]


def fetch(name: str, out: Path | None = None, *, confirm: Callable[[str], bool] | None = None) -> FetchResult:
    """Download a known data set, after its size and license were shown and agreed to.

    An interrupted download resumes. A file gets its name only when it is complete and checked. Existing
    files are kept. The archives stay as they are: `prepare` reads zips.

    Args:
        name: of `REMOTE_SETS`, as the kind of its source.
        out: the folder; default: one of that name here.
        confirm: gets the question and returns whether to continue; None: continue.

    Returns:
        the files, or the steps of a set that needs a login or a form.

    Raises:
        UsageError: an unknown name, or not agreed to.
        DataError: a download differs from its published checksum, or a file of that name stands there that is another.
        ResourceError: no network, the host refuses, the connection is cut again and again, no space.
    """
    if name not in REMOTE_SETS:
        names = sorted(REMOTE_SETS)
        raise UsageError(f"fetch: '{name}' is not a supported data set; allowed: {', '.join(names)}{nearest(name, names)}")
    remote, folder = REMOTE_SETS[name], out if out is not None else Path(name)
    if remote.steps:
        return FetchResult(name, folder, remote, ())
    for line in card(remote):
        say(line)
    if confirm is not None and not confirm(f"Download it to {folder}, under that license?"):
        raise UsageError("fetch: nothing was downloaded; answer y, or give --yes")
    files = _listed(remote) if remote.index else remote.files
    record = _record(folder)
    done = []
    for file in files:
        done.append(_one(file, folder, record, remote))
        record = {**record, file.name: done[-1]}
        told = {key: getattr(remote, key) for key in ("title", "license", "citation", "page")}
        write_json(folder / RECORD, {"name": name, **told, "files": list(record.values())})
    return FetchResult(name, folder, remote, tuple(done))


def card(remote: RemoteSet) -> list[str]:
    """What to show before a download."""
    return [
        remote.title,
        f"size: {remote.size}",
        f"license: {remote.license}",
        f"cite: {remote.citation}",
        f"page: {remote.page}",
    ]


def _one(file: RemoteFile, folder: Path, record: dict[str, Any], remote: RemoteSet) -> dict[str, Any]:
    """Download a file, or keep it where it is there already."""
    if (problem := name_problem(file.name)) is not None or "/" in file.name:
        raise DataError(f"{remote.page}: a listed file {problem or 'lies in a folder'}; download the set by hand")
    path = folder / file.name
    fresh = not path.exists()
    if fresh:
        download(file, path)
    digest = sha256_file(path)
    if not fresh:
        known = record.get(file.name, {}).get("sha256") == digest
        if not known and (file.md5 is None or md5_file(path) != file.md5):
            raise DataError(
                f"{path.name}: exists in {folder.name} and was not written by fetch; move it away, or name another folder"
            )
    return {
        "name": file.name, "url": file.url, "bytes": path.stat().st_size, "sha256": digest, "md5": file.md5,
        "checked": file.md5 is not None, "fresh": fresh,
    }  # fmt: skip


def _listed(remote: RemoteSet) -> tuple[RemoteFile, ...]:
    """The files of a set as its host lists them, with their checksums."""
    assert remote.index is not None
    listing = RemoteFile("the list of files", remote.index)
    try:
        with open_url(remote.index, {}) as answer:
            data = answer.read(_MAX_INDEX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise ResourceError(
            f"{explain_failure(error, listing).message}; or download the files by hand from {remote.page}"
        ) from error
    try:
        values = json.loads(data)
        files = _dataverse(values, remote.index) if remote.index_kind == "dataverse" else _figshare(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResourceError(
            f"{urllib.parse.urlsplit(remote.index).hostname}: did not return a list of files; "
            f"try later, or download them by hand from {remote.page}"
        ) from error
    wanted = tuple(file for file in files if file.name.startswith(remote.starts))
    if not wanted:
        raise ResourceError(f"the host lists none of the files ({', '.join(remote.starts)}); download them from {remote.page}")
    return tuple(sorted(wanted, key=lambda file: (file.size or 0, file.name)))


def _dataverse(values: Any, index: str) -> list[RemoteFile]:
    """Dataverse's native API. Size and checksum of a table may be those of the file as it was uploaded: they do not count."""
    host = index.partition("/api/")[0]
    found = []
    for entry in values["data"]["latestVersion"]["files"]:
        file = entry["dataFile"]
        table = bool(file.get("tabularData")) or str(file["filename"]).endswith(".tab")
        url = f"{host}/api/access/datafile/{int(file['id'])}"
        found.append(
            RemoteFile(str(file["filename"]), url, None if table else int(file["filesize"]), None if table else _md5_of(file))
        )
    return found


def _md5_of(file: dict[str, Any]) -> str | None:
    checksum = file.get("checksum") or {}
    value = file.get("md5") or (checksum.get("value") if checksum.get("type") == "MD5" else None)
    return None if value is None else str(value).lower()


def _figshare(values: Any) -> list[RemoteFile]:
    return [
        RemoteFile(str(file["name"]), str(file["download_url"]), int(file["size"]), str(file["computed_md5"]).lower() or None)
        for file in values["files"]
    ]


def _record(folder: Path) -> dict[str, Any]:
    """What earlier fetches put into the folder, by file name."""
    try:
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {str(file["name"]): file for file in values["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
