"""From a network's scores to an answer that can be taken at its word. numpy only.

A `recipes` entry makes logits from one or more passes of an image; `calibrators.Calibrator` makes them probabilities;
`conformal.Sets` gives the classes that stay in question; `ood.Detector` says how foreign a picture is;
`decision_rule.Rule` answers, answers with a set, or refers, with the reason. Each belongs to one recipe and travels
in the artifact. Nothing here reads a run: who fits one hands over arrays.

To add one: a function and a row of `CALIBRATORS`, `OOD_SCORES`, `SCORES` or `RECIPES`.
"""
