"""What is learned and answered, in numpy.

`base.Task` is one row of `TASKS`: how labels of the manifest become targets, logits become probabilities, several
passes become one answer, which metrics validation has and which of them may choose the epoch. Code that needs one of
these takes it from the task of the run. What a task asks of PyTorch is in `training/objective.py`.

To add a task: a row here, an objective, sections of the report, and its answer in `serve/`.
"""
