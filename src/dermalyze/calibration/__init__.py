"""From a network's scores to calibrated probabilities and decisions. numpy only.

A `recipes` entry makes logits from one or more passes of an image; `calibrators.Calibrator` makes them probabilities;
`conformal.ConformalSets` gives the classes that stay in question; `ood.Detector` scores how unlike the training images one is;
`decision_rule.Rule` answers, answers with a set, or refers, with the reason. Each belongs to one recipe and travels
in the artifact. Nothing here reads a run: who fits one hands over arrays.

To add one: a function and a row of `CALIBRATORS`, `OOD_SCORES`, `SCORES` or `RECIPES`.
"""
