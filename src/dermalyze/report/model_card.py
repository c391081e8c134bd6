"""The model card: Markdown with YAML front matter as model hubs expect it. Every number comes from the metrics file.

Mitchell et al. 2019, doi:10.1145/3287560.3287596
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from dermalyze.report.checklists import escaped
from dermalyze.report.controls import TITLES, sentence
from dermalyze.report.operating import measured_points
from dermalyze.report.text import interval_or_note, meanings, task_of, value_text
from dermalyze.tasks.base import TASKS

Json = Mapping[str, Any]

INDEXED = ("accuracy", "balanced_accuracy", "subset_accuracy", "macro_f1", "macro_auroc", "log_loss", "ece", "macro_ece")
HUB_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "macro_auroc": "roc_auc"}
"""Metric names that hubs know; the others keep their own."""
LICENSE = "The license of the training images determines what this model may be used for."


def model_card(m: Json) -> str:
    """The whole card.

    Args:
        m: the content of evaluation_metrics.json of a run's own test split.
    """
    return f"---\n{front_matter(m)}---\n\n" + "\n".join(body(m)) + "\n"


def front_matter(m: Json) -> str:
    """YAML for a hub: license, tags, task, data, metrics and results; what is not estimable is left out."""
    model, found = m["model"], m["data_sets"]
    named = model["source"] in [one["kind"] for one in found]  # a synthetic set has the layout of a data set and is none
    source = model["source"] if named else "own images"
    known = [name for name in INDEXED if m["metrics"].get(name, {"value": None})["value"] is not None]
    values: dict[str, Any] = {
        "license": next((one["license"] for one in found if one["license"]), "unknown"),
        "library_name": "dermalyze",
        "pipeline_tag": "image-classification",
        "tags": [
            "medical",
            "not-for-diagnosis",
            "onnx",
            model["backbone"],
            *dict.fromkeys(tag for one in found for tag in one["tags"]),
        ],
        **({"datasets": [source]} if named else {}),
        "metrics": [HUB_METRICS.get(name, name) for name in known],
        "model-index": [
            {
                "name": model["name"],
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": source, "type": source if named else "other", "split": m["set"]},
                        "metrics": [
                            {
                                "type": HUB_METRICS.get(name, name),
                                "name": meanings(m)[name][0],
                                "value": round(m["metrics"][name]["value"], 3),
                            }
                            for name in known
                        ],
                    }
                ],
            }
        ],
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def body(m: Json) -> list[str]:
    """The card's text, line by line."""
    person = m["person"] or {}
    leak = [f"**LEAK ACCEPTED, NOT A FAIR RESULT: {escaped(m['accepted_leak'])}**", ""] if m["accepted_leak"] else []
    return [
        f"# {escaped(m['model']['name'])}",
        "",
        f"**{m['disclaimer']}**",
        "",
        *leak,
        *(line for warning in m["warnings"] for line in (f"**{escaped(warning)}**", "")),
        *(line for sentence in m["about"]["sentences"] for line in (escaped(sentence), "")),
        "## Use",
        "",
        escaped(person.get("intended_use") or "Research and education: study, comparison and teaching."),
        "",
        "Not for:",
        "",
        *(f"- {line}" for line in m["about"]["not_for"]),
        "",
        "## Data",
        "",
        *data(m),
        "## Results",
        "",
        *results(m),
        *controls(m),
        "## Limitations",
        "",
        *(f"- {line}" for line in m["known_biases"]),
        "- Intervals apply to cases sampled like those of the test split; other devices, clinics or people give other results.",
        *([f"- {escaped(person['limitations'])}"] if person.get("limitations") else []),
        "",
        "## License",
        "",
        " ".join([LICENSE, *(one["license_note"] for one in m["data_sets"] if one["license_note"])]),
        "",
        "## Reproducibility",
        "",
        *provenance(m),
    ]


def data(m: Json) -> list[str]:
    """Splits, and the certificate that nothing crosses them."""
    split = m["split"]
    rows = [
        f"| {part} | {counts['images']} | {counts['groups']} | {split['used_for'].get(part, '')} |"
        for part, counts in split["counts"].items()
    ]
    verdict = "Certified: nothing crosses the splits." if split["passed"] else "**This split leaks.**"
    checks = [f"- {check['name']}: {'holds' if check['passed'] else 'fails'} ({check['detail']})" for check in split["checks"]]
    return ["| split | images | groups | used for |", "|---|---|---|---|", *rows, "", verdict, "", *checks, ""]


def results(m: Json) -> list[str]:
    """Overall and per-class metrics with intervals, and how the probabilities were calibrated."""
    level = f"{100 * m['level']:g} %"
    overall = [
        f"| {meanings(m)[name][0]} | {value_text(found)} | {interval_or_note(found)} |" for name, found in m["metrics"].items()
    ]
    columns = ("recall", "specificity", "precision", "auroc")
    classes = []
    for name, found in m["per_class"].items():
        cells = [f"{value_text(found[key])} ({interval_or_note(found[key])})" for key in columns]
        classes.append(f"| {escaped(name)} | {escaped(found['description'])} | {found['support']} | {' | '.join(cells)} |")
    calibrator = m["calibration"]["calibrator"]
    how = (
        f"the plain {TASKS[task_of(m)].activation}"
        if calibrator == "none"
        else f"a calibrator of kind {calibrator.replace('_', ' ')}"
    )
    return [
        f"Test split: {m['n_images']} images of {m['n_groups']} groups; recipe {m['recipe']}; "
        f"{level} intervals by a bootstrap over groups.",
        "",
        f"| metric | value | {level} interval |",
        "|---|---|---|",
        *overall,
        "",
        "| class | what it is | images | sensitivity | specificity | precision | AUROC |",
        "|---|---|---|---|---|---|---|",
        *classes,
        "",
        f"Probabilities: {how}.",
        "",
        *operating_points(m),
        *selective_prediction(m),
    ]


def operating_points(m: Json) -> list[str]:
    """The thresholds that a served model can be set to, and what was measured at them."""
    rows = [
        f"| {escaped(name)} | {100 * point['target']:g} % | {point['threshold']:.3f} | {_share(point['sensitivity'])} "
        f"| {_share(point['specificity'])} |"
        for name, points in measured_points(m.get("operating")).items()
        for key, point in points.items()
        if key.startswith("sensitivity_")
    ]
    head = [
        "Operating points: an image is flagged if the summed probability of the classes reaches the threshold. Thresholds come "
        "from the calibration split, sensitivity and specificity from the test split.",
        "",
        "| question | target sensitivity | threshold | sensitivity | specificity |",
        "|---|---|---|---|---|",
    ]
    return [*head, *rows, ""] if rows else []


def _share(found: Json) -> str:
    return f"{value_text(found)} ({interval_or_note(found)})"


def selective_prediction(m: Json) -> list[str]:
    """Selective prediction: what is gained by referring the least confident cases."""
    rows = []
    for row in m["selective"]["coverages"]:
        found = f"{value_text(row['accuracy'])} ({interval_or_note(row['accuracy'])})"
        rows.append(f"| {100 * row['asked']:g} % | {value_text(row['coverage'])} | {found} |")
    head = [
        "Accuracy if only the most confident cases are answered:",
        "",
        "| target coverage | coverage | accuracy |",
        "|---|---|---|",
    ]
    return [*head, *rows, ""] if rows else []


def controls(m: Json) -> list[str]:
    """Results of the negative controls."""
    found = (m["controls"] or {"controls": {}})["controls"]
    lines = [f"- {TITLES[name]}: {control['verdict']}. {escaped(sentence(name, control))}" for name, control in found.items()]
    return ["## Negative controls", "", *lines, ""] if lines else []


def provenance(m: Json) -> list[str]:
    """Seeds, hashes and versions."""
    kept = {key: value for key, value in m["provenance"].items() if key != "versions" and value is not None}
    versions = ", ".join(f"{name} {version}" for name, version in m["provenance"]["versions"].items())
    lines = [f"- {key.replace('_', ' ')}: `{value}`" for key, value in kept.items()]
    return [
        "The run's folder holds `config.yaml`; with the same data: `dermalyze run config.yaml`.",
        "",
        *lines,
        f"- {versions}",
    ]
