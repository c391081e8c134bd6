"""The pieces of a training: losses, augmentation, optimizers, schedules, transfer strategies, checkpoints.

Each is a pure function of tensors and numbers, or a thin shell around one; the loop that calls them is
`stages/train.py`. `objective.Objective` joins what a task asks of a training: targets, loss, running metrics,
validation metrics. Augmentation of a batch depends on seed, epoch and position alone, and a `checkpoint` holds all
that the next step needs, so that a resumed training equals an uninterrupted one.

To add one: a spec with a `kind` in `config/train.py`, a function, and a row of `LOSSES`, `SCHEDULES`, `OPTIMIZERS`,
`STRATEGIES`, `IMBALANCE` or `POLICIES`.
"""
