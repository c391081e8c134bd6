"""What models said about images, stored and read back.

`predictions.Predictions` is one Parquet file per set and recipe: ids, labels, groups, logits of each pass,
embeddings. It comes from `stages/probe.py`, from somebody else's model (`third_party`) or from somebody's CSV
(`imported_predictions`); whoever evaluates reads only this and needs no model. `fit_calibration` and `fit_ood` fit what
`calibration/` holds on the calibration split of it. No page is written here.

To add a kind of out-of-distribution image: a row of `SYNTHETIC` in `ood_images.py`.
"""
