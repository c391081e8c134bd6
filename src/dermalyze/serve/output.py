"""Answers as text: a table for a person, JSON lines or CSV for a machine. Every form carries the disclaimer."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, TextIO

from dermalyze.core.errors import UsageError, one_line
from dermalyze.core.result import DISCLAIMER
from dermalyze.data.tables import neutralise
from dermalyze.serve.predictor import Prediction

Format = Literal["table", "jsonl", "csv"]


def write(
    rows: Iterable[Prediction], stream: TextIO, *, classes: Sequence[str], format: Format = "table", names: bool = False
) -> int:
    """Write answers as they come.

    Args:
        rows: answers, in order.
        stream: open for text.
        classes: of the model, in its order (columns of the CSV).
        format: "table", "jsonl" or "csv".
        names: add what the user called each image (which may identify a person).

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
    return writers[format](rows, stream, classes, names)


def safe_cell(text: str | None) -> str:
    """A cell that no spreadsheet takes for a formula and no terminal for a command.

    >>> safe_cell('=HYPERLINK("http://x")'), safe_cell("ISIC_0024306"), safe_cell(None)
    ('\\'=HYPERLINK("http://x")', 'ISIC_0024306', '')
    """
    return neutralise(one_line(text or ""))


def _table(rows: Iterable[Prediction], stream: TextIO, classes: Sequence[str], names: bool) -> int:
    width = max(10, *(len(name) for name in classes))
    print(f"{'#':>5}  {'image':12}  {'class':{width}}  prob.  description" + ("  name" if names else ""), file=stream)
    errors, leak = 0, None
    lacking: Counter[str] = Counter()
    for row in rows:
        errors, leak = errors + (row.error is not None), row.accepted_leak or leak
        lacking.update(row.metadata_unknown or ())
        image, name = row.image_id or (row.sha256 or "-")[:12], f"  {one_line(row.name or '')}" if names else ""
        probability = "    -" if row.confidence is None else f"{row.confidence:.3f}"
        said = row.error or row.reason or "; ".join(row.reasons) or row.predicted_class_description or ""
        shown = "refer" if row.verdict == "refer" else row.decision or ""
        label = one_line({"refer": "refer", "set": "set"}.get(shown, row.predicted_class or "error"))
        print(f"{row.index:5}  {one_line(image):12}  {label:{width}}  {probability}  {one_line(said)}{name}", file=stream)
    if leak:
        print(f"Trained on leaking data, accepted because: {one_line(leak)}", file=stream)
    if lacking:
        counts = ", ".join(f"{one_line(name)} of {n}" for name, n in lacking.items())
        print(f"Answered without metadata that the model takes: {counts}; give them with --metadata or in a CSV", file=stream)
    print(DISCLAIMER, file=stream)
    return errors


def _jsonl(rows: Iterable[Prediction], stream: TextIO, classes: Sequence[str], names: bool) -> int:
    errors = 0
    for row in rows:
        errors += row.error is not None
        print(json.dumps(row.as_dict(names=names), allow_nan=False), file=stream)
    return errors


def _csv(rows: Iterable[Prediction], stream: TextIO, classes: Sequence[str], names: bool) -> int:
    writer = csv.writer(stream, lineterminator="\n")
    header = ["index", "image", "image_id", *(["name"] if names else []), "predicted_class", "predicted_class_description"]
    header += [
        "confidence",
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
        cells = [str(row.index), (row.sha256 or "")[:12], safe_cell(row.image_id), *([safe_cell(row.name)] if names else [])]
        cells += [safe_cell(row.predicted_class), safe_cell(row.predicted_class_description)]
        numbers = [row.confidence, *(row.probabilities.get(name) for name in classes)]
        cells += ["" if number is None else f"{number:.9g}" for number in numbers]
        cells += ["" if row.error is not None else str(row.abstain).lower(), row.decision or ""]
        cells += ["" if row.ood_score is None else f"{row.ood_score:.9g}", safe_cell(row.reason)]
        cells += [row.verdict or "", safe_cell("; ".join(row.reasons))]
        cells += [safe_cell("; ".join(row.metadata_unknown or ()))]
        cells += [safe_cell("; ".join(row.notes)), safe_cell(row.error), safe_cell(row.accepted_leak), DISCLAIMER]
        writer.writerow(cells)
    return errors
