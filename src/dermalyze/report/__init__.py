"""From stored results to figures, sections and self-contained pages.

A `section.Section` has four pure parts: `build` computes entries of `evaluation_metrics.json`, `view` turns the file
into what its template prints, `template` names its HTML, `figures` gives PNG bytes. `evaluation_data.Judged` is all
that a report is made from; `evaluation.judge` fills the file and `write_report` writes the page. Every number on a
page stands in the JSON file beside it. No model, no GPU and no network address is needed, and nothing is drawn from
global state.

To add a section: a `Section` and its template, and a row of `SECTIONS`; texts of metrics are in `text.py`.
"""
