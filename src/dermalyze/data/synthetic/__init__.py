"""An invented data set in the layout of HAM10000, so that everything can be taught, tried and tested without a download.

`plan` draws lesions, patients and files; `class_appearance` draws what a class tends to look like; `paint` is the
canvas, `lesion` and `photo` paint on it; `synth.synthesize` writes the set, the same bytes for the same seed whatever
the workers. `plant` puts known defects in and `planted.json` tells which: what the audit's detectors are tested on.
`copies` are the altered copies that the search for duplicates must recognize. The images teach nothing about skin.

To add a defect: a function and a row of `PLANTS`; a dermoscopic structure: a painter in `STRUCTURES`.
"""
