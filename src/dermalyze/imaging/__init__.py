"""From bytes to pixels, and what is measured on pixels. numpy and Pillow only; pydicom where DICOM files are read.

`decode.decode` turns the bytes of a file into `Decoded`: upright RGB (H, W, 3) uint8 with notes, or an `ImageError`
with the reason. `preprocess.Preprocessing` says how such an image becomes the network's input. Training, evaluation
and serving all come through these two, so that they see the same numbers. `modalities` lists the kinds of images.
Quality, skin tone, ABCD, hashes and corruptions are functions of pixels. No path of a run, no class and no model is
known here.

To add a corruption: a function and a row of `CORRUPTIONS`; a file format: `decode.py`; a modality: `modalities.py`.
"""
