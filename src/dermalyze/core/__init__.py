"""Base of every step: the run folder, durable writes, device and threads, progress, CSV tables, zip archives.

`run.Run` is the folder that steps read and write; only `run_paths.py` knows its file names. A step asks it for a file
(`run.require(path, "split")` refuses with the command that makes it), and `atomic` writes the result: a reader sees
the old file or the new one, never half of it. `runtime.Runtime` is the device and its precision. Nothing here decodes
an image or loads a model.

To add a file to the run: a property in `run_paths.py`.
"""
