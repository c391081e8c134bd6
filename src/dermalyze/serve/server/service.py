"""What the server does with a request, without a word of HTTP routing: admit it, read it, decode, check and answer."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermalyze.artifact.cam_grade import UNGRADED
from dermalyze.config.serve import ServeSpec
from dermalyze.core.machine import session_threads
from dermalyze.core.result import DISCLAIMER
from dermalyze.errors import ModelError, UsageError, nearest
from dermalyze.imaging.samples import IMAGE
from dermalyze.imaging.tabular import Value
from dermalyze.serve.predictor.engine import Engine
from dermalyze.serve.predictor.heatmap import heat_png
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.server.decoding import Decoders
from dermalyze.serve.server.measured import Measured
from dermalyze.serve.server.refusals import Refusal
from dermalyze.serve.server.replies import heatmap_reply, image_reply, model_reply, model_words
from dermalyze.serve.server.uploads import Budget, Form, Receive, boundary_of, chunks, read_form

FIELDS = ("metadata", "top_k", "explain", "scores", "recipe", "model", "class")
BODIES = 8  # of the largest size that may be in memory at once
CALL_S = 0.05  # taken for one request before any was timed


@dataclass(frozen=True)
class Wish:
    """What a request asks for, checked.

    Attributes:
        name: of the model.
        top: how many classes or labels are ranked.
        explain: whether a heat map is wanted.
        of_class: for which class or label; None: the one that the answer puts first.
        known: each image's metadata.
        scores: whether class and probabilities of refused images are wanted.
    """

    name: str
    top: int
    explain: bool
    of_class: str | None
    known: list[dict[str, Value]]
    scores: bool


class Service:
    """Models, ready to answer requests.

    Args:
        models: runs or artifacts; the first answers where none is named.
        spec: limits.

    Raises:
        UsageError: no model, or two of one name.
        ModelError: an artifact is refused.
    """

    def __init__(self, models: Sequence[str | Path], spec: ServeSpec) -> None:
        self.spec, self.measured = spec, Measured()
        threads, passes = shared_cores(spec.threads, session_threads() or os.cpu_count() or 1)
        self.predictors: dict[str, Predictor] = {}
        for model in models:
            predictor = Predictor(model, threads=threads, sensitivity=spec.sensitivity, provider=spec.provider)
            record = predictor.artifact.record
            name = address(record.name)
            if name in self.predictors:
                raise UsageError(f"two models are called '{name}'; rename the folder of one and export it again")
            self.predictors[name] = predictor
        if not self.predictors:
            raise UsageError("no model; name a run or an artifact")
        self.decoders = Decoders(spec.decoders, spec.decoder_mib, spec.pixels, self.measured.lost_decoder)
        self.engine = Engine(spec.batch, passes, self.measured.model_fault)
        self.budget = Budget(BODIES * spec.body_mib * 2**20)
        self.under_way, self.call_s = 0, CALL_S

    def close(self) -> None:
        """End its threads and processes."""
        self.engine.close()
        self.decoders.close()

    @property
    def ready(self) -> bool:
        """Whether it can answer now."""
        return bool(self.decoders.pids)

    def models(self) -> dict[str, Any]:
        """The body of `/v1/models`."""
        return {"models": [model_reply(name, predictor) for name, predictor in self.predictors.items()]}

    def predictor(self, name: str) -> Predictor:
        """Raises: Refusal: no such model."""
        if name not in self.predictors:
            raise Refusal("not_found", f"there is no model of that name; there are {', '.join(self.predictors)}")
        return self.predictors[name]

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """One of the places of requests under way.

        Raises:
            Refusal: none is free.
        """
        self.check_room()
        self.under_way += 1
        self.measured.under_way.set(self.under_way)
        started = time.monotonic()
        try:
            yield
        finally:
            self.call_s = 0.9 * self.call_s + 0.1 * (time.monotonic() - started) / self.under_way
            self.under_way -= 1
            self.measured.under_way.set(self.under_way)

    def check_room(self) -> None:
        """Raises: Refusal: as many requests are under way as may be."""
        if self.under_way > self.spec.queue:
            seconds = max(1, math.ceil(self.under_way * self.call_s))
            raise Refusal("busy", f"{self.under_way} requests are under way", {"Retry-After": str(seconds)})

    async def predict(self, receive: Receive, headers: Mapping[str, str], *, explain: bool = False) -> dict[str, Any]:
        """The answer to a request to predict, or with `explain` to one to explain.

        Args:
            receive: ASGI's, for the body.
            headers: the request's, in lower case.

        Raises:
            Refusal: of the whole request; where it holds one image, of that.
        """
        self.check_room()  # before the body is read: nobody shall send it for nothing
        boundary, limit = boundary_of(headers.get("content-type")), self.spec.body_mib * 2**20
        length = int(headers.get("content-length", "0"))
        if length > limit:
            raise Refusal("too_large", f"the body is larger than {limit} bytes")
        size = length or limit  # of a chunked body the size is not known before
        self.budget.take(size)
        try:
            form = await read_form(
                chunks(receive, limit=limit, slow_s=self.spec.slow_s), boundary, files=1 if explain else self.spec.files
            )
            wish, until = self.wish(form, explain), time.monotonic() + self.spec.deadline_s
            with self.admitted():
                return await self._answer(samples_of(form), wish, until)
        finally:
            self.budget.give(size)

    def wish(self, form: Form, explain: bool) -> Wish:
        """What the fields of a form ask for.

        Raises:
            Refusal: a field is unknown, or its value makes no sense.
        """
        fields = form.fields
        for name in fields:
            if name not in FIELDS:
                raise Refusal("bad_field", f"there is no field of that name{nearest(name[:40], ['file', *FIELDS])}")
        if not form.files:
            raise Refusal("no_file", "the request holds no image")
        name = fields.get("model", next(iter(self.predictors)))
        if name not in self.predictors:
            raise Refusal("bad_field", f"model: there is none of that name; there are {', '.join(self.predictors)}")
        predictor = self.predictors[name]
        if fields.get("recipe", predictor.artifact.recipe) != predictor.artifact.recipe:
            raise Refusal(
                "other_recipe",
                f"recipe: the model is calibrated and measured with '{predictor.artifact.recipe}' and with no other",
            )
        explain, scores = yes_or_no(fields, "explain", explain) or explain, yes_or_no(fields, "scores", False)
        top = fields.get("top_k", str(len(predictor.classes)))
        if not re.fullmatch(r"[0-9]{1,6}", top, re.ASCII) or int(top) < 1:
            raise Refusal("bad_field", "top_k: must be a whole number from 1")
        if fields.get("class", predictor.classes[0]) not in predictor.classes:
            raise Refusal("bad_field", f"class: must be one of {', '.join(predictor.classes)}")
        for field, images in form.images.items():
            if field not in predictor.optional_images:
                raise Refusal("bad_field", f"{field}: this model takes one image per sample")
            if len(images) != len(form.files):
                raise Refusal(
                    "bad_field",
                    f"{field}: {len(images)} parts for {len(form.files)} images; send one per image, empty for none",
                )
        known = metadata_rows(fields.get("metadata"), len(form.files))
        try:
            rows = [predictor.metadata_of(row) for row in known]
        except UsageError as error:
            raise Refusal("metadata", str(error)) from None
        return Wish(name, int(top), explain, fields.get("class"), rows, scores)

    def explainable(self, predictor: Predictor, wish: Wish) -> tuple[bool | str, str | None]:
        """What the predictor is asked to explain, and why nothing is explained where something was wished for."""
        if not wish.explain:
            return False, None
        try:
            predictor.check_explain(True)
        except ModelError as error:
            return False, str(error)
        return wish.of_class or True, None

    async def _answer(self, samples: Sequence[Mapping[str, bytearray]], wish: Wish, until: float) -> dict[str, Any]:
        predictor = self.predictors[wish.name]
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                tasks = [self._sample(i, images, wish, until) for i, images in enumerate(samples)]
                results = await asyncio.gather(*tasks, return_exceptions=True)
        except TimeoutError:
            raise Refusal("too_late", f"the request was not answered within {self.spec.deadline_s:g} s") from None
        replies = []
        for index, result in enumerate(results):
            if isinstance(result, Refusal):
                if len(samples) == 1 or result.status >= 500:
                    raise result
                self.measured.images.labels("refused").inc()
                replies.append({"index": index, "error": result.words})
            elif isinstance(result, BaseException):
                raise result
            else:
                self.measured.images.labels(result["verdict"]).inc()
                replies.append(result)
        return {"model": model_words(wish.name, predictor), "results": replies, "disclaimer": DISCLAIMER}

    async def _sample(self, index: int, images: Mapping[str, bytearray], wish: Wish, until: float) -> dict[str, Any]:
        predictor, prepared = self.predictors[wish.name], {}
        for name, data in images.items():
            try:
                prepared[name] = await self.decoders.decode(bytes(data), predictor.preprocessing, until)
            except Refusal as refusal:
                raise refusal if name == IMAGE else Refusal(refusal.code, f"{name}: {refusal}") from None
        explain, note = self.explainable(predictor, wish)
        answer = await self.engine.answer(predictor, prepared, wish.known[index], explain)
        answer = answer if wish.scores else answer.without_scores()
        if wish.explain and answer.withheld:
            note = "no heat map: the image is refused"
        heatmap = None
        if answer.cam is not None:
            size = (prepared[IMAGE].width, prepared[IMAGE].height)
            png = await asyncio.to_thread(heat_png, answer.cam, size, predictor.preprocessing)
            heatmap = heatmap_reply(png, str(answer.cam_class), answer.cam_grade or UNGRADED)
        return image_reply(
            answer, index, descriptions=predictor.artifact.descriptions, top=wish.top, heatmap=heatmap, heatmap_note=note
        )


def yes_or_no(fields: Mapping[str, str], name: str, otherwise: bool) -> bool:
    """A field that is true or false.

    Raises:
        Refusal: it is neither.
    """
    value = fields.get(name, str(otherwise)).lower()
    if value not in ("true", "false", "1", "0"):
        raise Refusal("bad_field", f"{name}: must be true or false")
    return value in ("true", "1")


def samples_of(form: Form) -> list[dict[str, bytearray]]:
    """The images of each sample by name: the files, and the optional images beside them that are not empty."""
    samples = [{IMAGE: data} for data in form.files]
    for name, images in form.images.items():
        for sample, data in zip(samples, images, strict=True):
            sample |= {name: data} if data else {}
    return samples


def shared_cores(threads: int | None, cores: int) -> tuple[int, int]:
    """Threads of one pass of a network, and passes at once.

    Two passes side by side waste less than one whose threads wait for each other while images are decoded on the same cores.

    >>> shared_cores(None, 2), shared_cores(None, 16), shared_cores(2, 2), shared_cores(1, 1)
    ((1, 2), (8, 2), (2, 1), (1, 1))
    """
    wanted = threads or max(1, cores // 2)
    return wanted, 2 if 2 * wanted <= cores else 1


def metadata_rows(text: str | None, count: int) -> list[dict[str, Value]]:
    """Each image's metadata from the field of that name: an object for all, or a list, one per image.

    Raises:
        Refusal: neither, or a value that is no text, number or null.

    >>> metadata_rows('{"age": 55}', 2)
    [{'age': 55}, {'age': 55}]
    """
    if text is None or not text.strip():
        return [{} for _ in range(count)]
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refusal("metadata", "metadata: not JSON") from None
    rows = values if isinstance(values, list) else [values] * count
    if len(rows) != count:
        raise Refusal("metadata", f"metadata: a list of {len(rows)}, must have one entry an image ({count})")
    for row in rows:
        if not isinstance(row, dict):
            raise Refusal("metadata", "metadata: each entry must be an object, of column to value")
        for value in row.values():
            if isinstance(value, bool) or not (value is None or isinstance(value, str | int | float)):
                raise Refusal("metadata", "metadata: a value must be a text, a number or null")
            if len(str(value)) > 200:
                raise Refusal("metadata", "metadata: a value is too long")
    return [dict(row) for row in rows]


def _no_constant(text: str) -> float:
    raise ValueError(text)


def address(name: str) -> str:
    """A model's name as it may are in an address.

    >>> address("my model/1")
    'my-model-1'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
