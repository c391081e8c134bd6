"""Divide the prepared images into splits that share no group, and certify it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from dermalyze.config.data import PARTS
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import sha256_bytes, write_bytes, write_json
from dermalyze.core.run import Run
from dermalyze.data.duplicates import join_clusters, recorded
from dermalyze.data.grouping import LINKS, conflicts, crossings, describe_leaks, groups, keys, leaks, listed
from dermalyze.data.manifest import read_classes, read_manifest, read_task, usable
from dermalyze.data.multilabel_targets import counts_by
from dermalyze.data.splitting import MULTICLASS, Division, divide, part_csv
from dermalyze.errors import DataError
from dermalyze.tasks.base import Task

USED_FOR = {
    "train": "weights",
    "val": "early stopping and choices",
    "cal": "calibration, conformal sets, operating points, thresholds",
    "test": "final evaluation, used once",
}
CROSS_FITTED = (
    "cross-fitted on val: there is no calibration split, so the images that selected the epoch also calibrate the "
    "model; each half is calibrated on the other, which costs precision and leaves the choice of the epoch in the estimate"
)
MEANING = {
    "patient_id": "patients",
    "lesion_id": "lesions",
    "cluster_id": "near-duplicate clusters",
    "sha256": "identical files",
    "pixel_sha256": "identical pixels",
}


@dataclass(frozen=True)
class SplitResult:
    """What `split` did.

    Attributes:
        certificate: the content of splits/certificate.json.
    """

    certificate: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether no group crosses splits."""
        return bool(self.certificate["passed"])

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values: the certificate."""
        return self.certificate

    def lines(self) -> list[str]:
        """Lines for a person: a table of the splits, what was checked, and leaks in capitals."""
        counts: dict[str, Any] = self.certificate["counts"]
        classes = list(next(iter(counts.values()))["classes"])
        width = max(7, *(len(name) for name in classes))
        head = f"{'split':<6}{'images':>8}{'share':>8}{'groups':>8}  " + "".join(f"{name:>{width + 1}}" for name in classes)
        rows = [
            f"{part:<6}{c['images']:>8}{self.certificate['fractions']['got'][part]:>8.3f}{c['groups']:>8}  "
            + "".join(f"{c['classes'][name]:>{width + 1}}" for name in classes)
            for part, c in counts.items()
        ]
        lines = [head, *rows, *self.certificate["notes"]]
        if self.passed:
            lines.append(
                f"{len(self.certificate['checks'])} properties hold; no group crosses splits; seed {self.certificate['seed']}"
            )
        else:
            lines += [
                f"LEAK: {describe_leaks(self.certificate['leaks'])}",
                'train refuses this split without --accept-leak "reason", which every result then shows',
            ]
        return lines


def split(run: Run, spec: ExperimentSpec) -> SplitResult:
    """Write one CSV per split and the certificate; the same inputs give the same bytes.

    Near-duplicates that an audit has found are joined first, if they are not yet.

    Args:
        run: a prepared run.
        spec: its `split` is used, and `data.classes` where given.

    Raises:
        UsageError: not prepared yet.
        DataError: too few images, classes or groups; one image under two labels; a split column that is not valid.
    """
    manifest = read_manifest(run)
    classes, task = read_classes(run), read_task(run)
    duplicates = recorded(run, usable(manifest))
    if duplicates is not None:
        manifest = join_clusters(run, manifest, duplicates)
    frame = usable(manifest).reset_index(drop=True)
    twice = conflicts(frame)
    if twice:
        raise DataError(
            f"{len(twice)} image(s) have two labels; first: {', '.join(twice[0][:4])}; keep one label and prepare "
            f"again: dermalyze audit {run.root} lists them"
        )
    frame["group"] = groups(frame)
    division = divide(frame, spec.split, classes=classes, task=task)
    names = [part for part in PARTS if part in set(division.parts)]
    files = {part: part_csv(frame[division.parts == part]) for part in names}
    certificate = certify(frame, division, classes, spec.split.seed, task)
    certificate |= {"manifest_sha256": run.manifest_hash(), "files": {part: sha256_bytes(data) for part, data in files.items()}}
    if spec.split.kind == "kfold" and division.kind == "kfold":
        certificate |= {"folds": spec.split.folds, "fold": spec.split.fold}
    run.certificate_path.unlink(missing_ok=True)  # the old one must not stand beside new parts if we are stopped here
    for part in PARTS:
        if part in files:
            write_bytes(run.split_path(part), files[part])
        else:
            run.split_path(part).unlink(missing_ok=True)
    write_json(run.certificate_path, certificate)
    return SplitResult(certificate)


def certify(frame: pd.DataFrame, division: Division, classes: list[str], seed: int, task: Task = MULTICLASS) -> dict[str, Any]:
    """Each property of a split, checked, with its count.

    Args:
        frame: usable manifest rows with `group`; every image is in `division`.
        classes: all classes, in order.

    Returns:
        schema_version, kind, seed, passed, checks, leaks, counts, fractions, used_for, calibration, notes. `passed` is
        that of all checks but the balance of sizes, which one large group may make impossible.
    """
    parts = division.parts
    names = [part for part in PARTS if part in set(parts)]
    found = leaks(frame, parts)
    got: dict[str, float] = {part: float((parts == part).mean()) for part in names}
    largest = int(frame["group"].value_counts().iloc[0])
    slack = max(0.01, largest / len(frame))
    table = counts_by(parts, frame["label"], classes, task).reindex(index=names, fill_value=0)

    def check(name: str, passed: bool, count: int, detail: str) -> dict[str, Any]:
        return {"name": name, "passed": passed, "count": count, "detail": detail}

    checks = [
        check("every image in exactly one part", bool(parts.isin(names).all()), len(parts), f"{len(parts)} images"),
        check("no group in two splits", not found, frame["group"].nunique(), f"{len(found)} cross"),
    ]
    for column in LINKS:
        values, where = listed(frame, column, parts)
        crossed = crossings(values, where)
        shared = int((values.dropna().value_counts() > 1).sum())
        detail = f"{len(crossed)} cross; {shared} have more than one image, {int(values.isna().sum())} images have none"
        checks.append(check(f"no {MEANING[column]} in two splits", not crossed, int(values.nunique()), detail))
    checks += [
        check("no image under two labels", not conflicts(frame), len(frame), "file bytes and pixels compared"),
        check(
            "every class in every part",
            bool((table > 0).all(axis=None)),
            len(classes),
            f"fewest images: {int(table.min(axis=None))}",
        ),
    ]
    passed = all(c["passed"] for c in checks)
    if division.asked is not None:
        off = max(abs(got[part] - share) for part, share in _asked(division.asked, division, got).items())
        detail = f"largest difference {100 * off:.2f} percentage points; the largest group has {largest} images"
        checks.append(check("sizes as asked", off <= slack, len(names), detail))
    fitted = "on the calibration split" if "cal" in names else CROSS_FITTED
    return {
        "schema_version": 1,
        "kind": division.kind,
        "seed": seed,
        "passed": passed,
        "checks": checks,
        "leaks": found,
        "counts": {
            part: {
                "images": int((parts == part).sum()),
                "groups": int(frame.loc[parts == part, "group"].nunique()),
                "lesions": int(keys(frame, "lesion_id")[parts == part].nunique()),
                "classes": {name: int(table.loc[part, name]) for name in classes},
            }
            for part in names
        },
        "fractions": {"asked": division.asked, "got": got},
        "used_for": {
            part: USED_FOR[part] + (", calibration (cross-fitted)" if part == "val" and "cal" not in names else "")
            for part in names
        },
        "calibration": fitted,
        "notes": [*division.notes, *([] if "cal" in names else [f"calibration is {fitted}"])],
    }


def _asked(asked: dict[str, float], division: Division, got: dict[str, float]) -> dict[str, float]:
    """Shares asked of the whole set; in k-fold the test split is a fold, and the fractions divide the rest."""
    if division.kind != "kfold":
        return asked
    rest = sum(share for part, share in asked.items() if part != "test")
    return {part: (1 - got["test"]) * share / rest for part, share in asked.items() if part != "test"}
