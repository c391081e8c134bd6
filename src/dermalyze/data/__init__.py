"""From folders and tables to batches.

`sources` list images with labels; the manifest has one row per image, with hashes, group and label; `splitting`
divides groups into train, val, cal and test; `loader` gives batches of uint8 pixels by row number, from a memory-
mapped cache or from workers that decode. `store.ImageStore` is the only way to an image's bytes. What is refused is a
`DataError` that names the row. Nothing here imports `models`, and no lesion or patient may stand on both sides of a
split (`grouping`).

To add a data set: see `sources`; a set that can be fetched: a row of `catalog.REMOTE_SETS`.
"""
