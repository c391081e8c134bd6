"""What a user may ask for, as frozen pydantic models.

`experiment.ExperimentSpec` is the whole YAML file; every component gets its own part of it, never the whole. A choice
is a union discriminated by `kind`. `load_experiment` reads the file, applies `--set` and refuses unknown keys with
the nearest one named; values are checked here, once. No code here acts on a setting, and nothing heavy is imported.

To add an option: a field, or a `Spec` with a `kind` in its union; the function and the table's row are in the room
that does the work, and a contract test holds the two together.
"""
