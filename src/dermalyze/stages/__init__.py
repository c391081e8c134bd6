"""The steps of a run, one file each.

A stage is a function of a `Run` and its `ExperimentSpec` that reads what earlier steps left in the folder, writes its
own files and returns a `Result` (`as_dict` for machines, `lines` for people). The folder is the only interface: no
stage imports or calls another. A stage is the thin shell that reads, calls pure functions of the rooms above and
writes whole files; a refused stage leaves nothing half-written, and one that is finished and unchanged can be called
again.

To add a step: a file here, its names in `core/run_paths.py`, its public name in `__init__`, and a command.
"""
