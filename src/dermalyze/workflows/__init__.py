"""Many steps or many runs together, and questions about the machine.

`pipeline.run_experiment` calls the stages in order and skips what is finished. Studies, ensembles and controls make
several runs or small trainings and compare them on the same test images; `paired` says whether a difference is more
than chance. `advise`, `models` and `doctor` answer questions before there is a run.

To add a control: a function and a row of `CONTROLS`, its words in `report/controls.py`; a rule of advice:
`guidelines.json`.
"""
