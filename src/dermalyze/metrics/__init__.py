"""Metrics as pure numpy functions: no files, no model, no configuration of a run.

`scores.Scores` holds labels and probabilities, checked once. Under a weight per image, or under many weightings at
once, it gives a `Tally`, and every metric is a function of a tally; so the cluster bootstrap in `bootstrap` is a
matrix of weights, not a loop over resamples. Labels go the same way in `multilabel`. A metric that is not defined is
NaN, never 0.

To add a metric: a function of a tally and a row of `METRICS`, `PER_CLASS_METRICS` or `LABEL_METRICS`, its name on the
page in `report/text.py`, and a test against an independent reference.
"""
