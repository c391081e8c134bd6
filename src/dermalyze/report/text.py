"""Names and explanations of the metrics in `evaluation_metrics.json`, and formatting of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

MEANINGS: dict[str, tuple[str, str, str]] = {  # name in the file: name on the page, best value, meaning
    "accuracy": ("accuracy", "1", "share of images whose most probable class is correct; high if a common class is easy"),
    "balanced_accuracy": ("balanced accuracy", "1", "mean sensitivity over classes, rare or common; ISIC 2018 and "
                          "2019 rank by it (balanced multiclass accuracy)"),
    "macro_precision": ("macro precision", "1", "mean over classes of the share of correct predictions"),
    "macro_recall": ("macro recall", "1", "the same as balanced accuracy"),
    "macro_f1": ("macro F1", "1", "mean over classes of the harmonic mean of precision and sensitivity"),
    "weighted_precision": ("weighted precision", "1", "precision averaged by number of images"),
    "weighted_recall": ("weighted recall", "1", "the same as accuracy"),
    "weighted_f1": ("weighted F1", "1", "F1 averaged by number of images"),
    "kappa": ("Cohen's kappa", "1", "agreement of predictions and labels beyond chance; 0 is chance"),
    "mcc": ("Matthews' correlation", "1", "correlation of predictions and labels, −1 to 1; 0 is chance"),
    "top_2_accuracy": ("top-2 accuracy", "1", "share of images whose class is among the two most probable"),
    "top_3_accuracy": ("top-3 accuracy", "1", "share of images whose class is among the three most probable"),
    "macro_auroc": ("macro AUROC", "1", "mean over classes of ranking one class above the rest; 0.5 is chance"),
    "macro_auroc_ovo": ("pairwise AUROC", "1", "mean AUROC over pairs of classes; does not depend on class frequencies"),
    "macro_average_precision": ("macro average precision", "1", "mean area under the precision-recall curves"),
    "log_loss": ("log loss", "0", "mean of −log probability of the true class, natural logarithm"),
    "brier": ("Brier score", "0", "mean squared error of the probabilities, summed over classes; 2 is the worst"),
    "ece": ("expected calibration error", "0", "mean gap between confidence and accuracy; noise alone keeps it above 0"),
}  # fmt: skip

LABEL_MEANINGS: dict[str, tuple[str, str, str]] = {  # of task multilabel
    "macro_auroc": ("macro AUROC", "1", "mean over labels of ranking images with the label above those without; 0.5 is "
                    "chance"),
    "macro_average_precision": ("macro average precision", "1", "mean over labels of the area under the precision-recall "
                                "curve; chance is the label's share"),
    "macro_f1": ("macro F1", "1", "mean over labels of the harmonic mean of precision and sensitivity, at the thresholds"),
    "macro_recall": ("macro sensitivity", "1", "mean over labels of the share of images with it that are predicted"),
    "macro_specificity": ("macro specificity", "1", "mean over labels of the share of images without it that are not "
                          "predicted"),
    "macro_precision": ("macro precision", "1", "mean over labels of the share of correct predictions"),
    "micro_auroc": ("micro AUROC", "1", "ranking of all pairs of an image and a label; common labels weigh more"),
    "micro_average_precision": ("micro average precision", "1", "the same for the precision-recall curve"),
    "micro_f1": ("micro F1", "1", "F1 of the counts of all labels together"),
    "subset_accuracy": ("subset accuracy", "1", "share of images with every label predicted correctly"),
    "hamming_loss": ("Hamming loss", "0", "share of all pairs of an image and a label that are predicted wrongly"),
    "ranking_average_precision": ("label ranking average precision", "1", "how far an image's labels rank above the others by "
                                  "probability"),
    "log_loss": ("log loss", "0", "mean binary cross-entropy of all pairs of an image and a label, natural logarithm"),
    "macro_brier": ("macro Brier score", "0", "mean over labels of the mean squared error of the probability"),
    "macro_ece": ("macro calibration error (ECE)", "0", "mean over labels of the gap between probability and share; noise "
                  "alone keeps it above 0"),
}  # fmt: skip

MEANINGS_OF = {"multiclass": MEANINGS, "multilabel": LABEL_MEANINGS}


def task_of(m: Json) -> str:
    """The kind of task that was evaluated."""
    return str(m["task"])


def meanings(m: Json) -> dict[str, tuple[str, str, str]]:
    """Name, best value and meaning of each overall metric of the task that was evaluated."""
    return MEANINGS_OF[task_of(m)]


def value_text(estimate: Json) -> str:
    """The value, or that it is not estimable.

    >>> value_text({"value": None, "n": 0, "note": "not estimable (n = 0)"})
    'not estimable (n = 0)'
    """
    return f"{estimate['value']:.3f}" if estimate["value"] is not None else f"not estimable (n = {estimate['n']})"


def interval_or_note(estimate: Json) -> str:
    """The interval, or why there is none.

    >>> interval_or_note({"value": 0.5, "low": 0.41, "high": 0.6, "n": 40, "note": ""})
    '0.410 – 0.600'
    """
    if estimate["low"] is not None:
        return f"{estimate['low']:.3f} – {estimate['high']:.3f}"
    return str(estimate["note"]).removeprefix(f"not estimable (n = {estimate['n']})").removeprefix(": ")


def with_p(value: float | None, p_value: float | None) -> str:
    """A number and its p-value.

    >>> with_p(0.414, 0.00002), with_p(0.1, 0.25), with_p(None, None)
    ('0.414 (p < .001)', '0.100 (p = .250)', '–')
    """
    if value is None or p_value is None:
        return number(value)
    return f"{number(value)} (p {'< .001' if p_value < 0.001 else f'= {p_value:.3f}'.replace('0.', '.')})"


def cell(estimate: Json) -> tuple[str, str]:
    """Value and interval (or why there is none), for a cell of a table."""
    return value_text(estimate), interval_or_note(estimate)


def number(value: float | None) -> str:
    """A value without interval.

    >>> number(0.12345), number(None)
    ('0.123', '–')
    """
    return "–" if value is None else f"{value:.3f}"
