"""Answers as text: a table for a person, JSON lines or CSV for a machine. Every form carries the disclaimer."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, TextIO

from dermalyze.core.result import DISCLAIMER
from dermalyze.core.tables import neutralise
from dermalyze.errors import UsageError, one_line
from dermalyze.serve.predictor.prediction import Prediction
from dermalyze.serve.predictor.predictor import no_image

Format = Literal["table", "jsonl", "csv"]
FILE_WIDTH = 32


def write(
    rows: Iterable[Prediction], stream: TextIO, *, classes: Sequence[str], format: Format = "table", names: bool = False,
    task: str = "multiclass",
) -> int:  # fmt: skip
    """Write answers as they come.

    Args:
        rows: answers, in order.
        stream: open for text.
        classes: of the model, in its order (columns of the CSV).
        format: "table", "jsonl" or "csv".
        names: add `file`, what the user called each image, which may identify a person; the table shows it in place of the
            hash.
        task: of the model: of multilabel the labels that are called stand in place of a class.

    Returns:
        Number of rows with an error.

    Raises:
        UsageError: no such format.

    >>> import sys
    >>> rows = [Prediction(0, "ab" * 32, "nv", "Melanocytic nevi", 0.9, {"nv": 0.9}), Prediction(1, None, error="no such file")]
    >>> write(rows, sys.stdout, classes=["nv"])
        #  image         class       prob.  description
        0  abababababab  nv          0.900  Melanocytic nevi
        1  -             error           -  no such file
    For research and education only; not a medical device and not a diagnosis.
    1
    """
    writers = {"table": _table, "jsonl": _jsonl, "csv": _csv}
    if format not in writers:
        raise UsageError(f"format '{format}' is not one of {', '.join(writers)}")
    return writers[format](rows, stream, classes, names, task == "multilabel")


def shortened(text: str, width: int) -> str:
    """The end of a long name, which tells files of one folder apart.

    >>> shortened("photos/clinic/ISIC_0024306.jpg", 20)
    '...ISIC_0024306.jpg'
    """
    return text if len(text) <= width else f"...{text[3 - width :]}"


def safe_cell(text: str | None) -> str:
    """A cell that no spreadsheet takes for a formula and no terminal for a command.

    >>> safe_cell('=HYPERLINK("http://x")'), safe_cell("ISIC_0024306"), safe_cell(None)
    ('\\'=HYPERLINK("http://x")', 'ISIC_0024306', '')
    """
    return neutralise(one_line(text or ""))


def _table(rows: Iterable[Prediction], stream: TextIO, classes: Sequence[str], names: bool, several: bool) -> int:
    width = max(10, *(len(name) for name in classes))
    head = "prob.  labels" if several else "prob.  description"
    what = "top label" if several else "class"
    title, column = ("file", FILE_WIDTH) if names else ("image", 12)
    print(f"{'#':>5}  {title:{column}}  {what:{width}}  {head}", file=stream)
    errors, leak = 0, None
    lacking: Counter[str] = Counter()
    alone, grade = 0, None
    for row in rows:
        errors, leak, grade = errors + (row.error is not None), row.accepted_leak or leak, row.cam_grade or grade
        lacking.update(row.metadata_unknown or ())
        alone += row.error is None and no_image("image_2") in row.notes
        image = one_line(row.image_id or (row.sha256 or "-")[:12])
        if names and row.file:
            image = shortened(one_line(row.file), FILE_WIDTH)
        top = row.predicted_class
        highest = row.confidence
        if row.positive is not None:
            top, highest = max(row.probabilities.items(), key=lambda item: item[1])
        probability = "    -" if highest is None else f"{highest:.3f}"
        called = ", ".join(row.positive) or "none" if row.positive is not None else ""
        said = row.error or row.reason or "; ".join(row.reasons) or row.predicted_class_description or called
        shown = "refer" if row.verdict == "refer" else row.decision or ""
        label = one_line({"refer": "refer", "set": "set"}.get(shown, top or "error"))
        print(f"{row.index:5}  {image:{column}}  {label:{width}}  {probability}  {one_line(said)}", file=stream)
    if leak:
        print(f"Trained on leaking data, accepted because: {one_line(leak)}", file=stream)
    if lacking:
        counts = ", ".join(f"{one_line(name)} of {n}" for name, n in lacking.items())
        print(f"Answered without metadata that the model takes: {counts}; give them with --metadata or in a CSV", file=stream)
    if alone:
        print(
            f"Answered without a second image: {alone}; give it with --image-2 or in a CSV's column image_2_path", file=stream
        )
    if grade:
        measured = f" ({grade.lesions} test groups)" if grade.lesions else ""
        print(f"Heat maps of this model: {one_line(grade.words)}{measured}", file=stream)
    print(DISCLAIMER, file=stream)
    return errors


def _jsonl(rows: Iterable[Prediction], stream: TextIO, classes: Sequence[str], names: bool, several: bool) -> int:
    errors = 0
    for row in rows:
        errors += row.error is not None
        print(json.dumps(row.as_dict(names=names), allow_nan=False), file=stream)
    return errors


def _csv(rows: Iterable[Prediction], stream: TextIO, classes: Sequence[str], names: bool, several: bool) -> int:
    writer = csv.writer(stream, lineterminator="\n")
    header = ["index", *(["file"] if names else []), "image", "image_id"]
    header += [
        *(["positive"] if several else ["predicted_class", "predicted_class_description", "confidence"]),
        *(f"p_{one_line(name)}" for name in classes),
        "abstain",
        "decision",
        "ood_score",
        "reason",
        "verdict",
        "reasons",
        "metadata_unknown",
        "notes",
        "error",
        "accepted_leak",
        "disclaimer",
    ]
    writer.writerow(header)
    errors = 0
    for row in rows:
        errors += row.error is not None
        cells = [str(row.index), *([safe_cell(row.file)] if names else []), (row.sha256 or "")[:12], safe_cell(row.image_id)]
        if several:
            cells += [safe_cell("|".join(row.positive or ()))]
        else:
            cells += [safe_cell(row.predicted_class), safe_cell(row.predicted_class_description)]
        numbers = [*([] if several else [row.confidence]), *(row.probabilities.get(name) for name in classes)]
        cells += ["" if number is None else f"{number:.9g}" for number in numbers]
        cells += ["" if row.error is not None else str(row.abstain).lower(), row.decision or ""]
        cells += ["" if row.ood_score is None else f"{row.ood_score:.9g}", safe_cell(row.reason)]
        cells += [row.verdict or "", safe_cell("; ".join(row.reasons))]
        cells += [safe_cell("; ".join(row.metadata_unknown or ()))]
        cells += [safe_cell("; ".join(row.notes)), safe_cell(row.error), safe_cell(row.accepted_leak), DISCLAIMER]
        writer.writerow(cells)
    return errors
