"""One server and one browser for each file of tests on the web page."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mapped import CAM_RECORD, mapped_graph
from PIL import Image
from serving import server
from web_page import ARGUMENTS, CHROMIUM, Watched, watched

from dermalyze.config.classes import HAM10000_CLASSES
from dermalyze.data.synthetic.synth import synthesize


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, artifact_writer: Callable[..., Path]) -> Iterator[str]:
    """Of a server that answers by a small network with the seven classes of HAM10000 and a heat map."""
    folder = tmp_path_factory.mktemp("served") / "artifact"
    height, width = 48, 64
    artifact_writer(
        folder,
        classes=tuple(HAM10000_CLASSES),
        height=height,
        width=width,
        graph=mapped_graph(len(HAM10000_CLASSES), height, width),
        cam={**CAM_RECORD, "height": height // 4, "width": width // 4},
        training={"source": "ham10000"},
    )
    with server(folder) as started:
        yield started.address + "/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Watched]]:
    """Open the page, perhaps with settings of a Playwright context; at the end nothing may have gone wrong or elsewhere."""
    contexts, pages = [], []

    def open_one(**settings: Any) -> Watched:
        contexts.append(watched(browser, address, **settings))
        pages.append(contexts[-1].__enter__())
        return pages[-1]

    yield open_one
    for context in contexts:
        context.__exit__(None, None, None)
    for page in pages:
        assert page.errors == []
        assert [url for url in page.asked if not url.startswith((address, "blob:", "data:"))] == []


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> list[Path]:
    """Six dermoscopic images: real ones where they are available, else invented ones."""
    folder = tmp_path_factory.mktemp("pictures")
    real = shared / "data" / "ham10000" / "HAM10000_images_part_1.zip"
    if real.exists():
        with zipfile.ZipFile(real) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:600:100]
            return [Path(archive.extract(name, folder)) for name in names]
    made = synthesize(folder / "set", lesions=7, size_px=(150, 200), balance="even", workers=1)
    return sorted(made.root.rglob("*.jpg"))[:6]


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("noise") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)).save(path)
    return path
