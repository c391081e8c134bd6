"""What would make any result from a data set worthless, found before training.

A check is a pure function from manifest rows, or from measurements of images, to `checks.Finding`s: a kind, a
severity (refuse, warn, info), a count, one line for a person, and a few ids. `checks.audit_frame` runs those that
need the table alone; `image_statistics`, `metadata_baseline` and `label_errors` need images, metadata or features.
Scores that decide are of groups which the estimate has not seen (`association.folds`). An audit changes nothing and
removes nothing; `stages/audit.py` writes what was found.

To add a check: a function that returns findings, called from `audit_frame`.
"""
