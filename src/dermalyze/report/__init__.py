"""From stored results to figures, sections and self-contained pages.

A `section.Section` has four pure parts: `build` computes entries of `evaluation_metrics.json`, `view` turns the file
into what its template prints, `template` names its HTML, `figures` gives PNG bytes. `evaluation_data.Evaluation` is all
that a report is made from; `evaluation.measure` computes the file and `write_report` writes the page. Every number on a
page is also in the JSON file beside it. No model, no GPU and no network access is needed, and no global state is used.

To add a section, write a `Section` and its template and add a row to `SECTIONS`; texts of metrics are in `text.py`.
"""
