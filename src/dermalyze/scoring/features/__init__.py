"""Embeddings of images, and what can be read from them without training a network.

`store.Features` is an array (N, D) with ids, of the run's own network or of a pretrained one, kept in a file with
what made it. On it stand linear probes, nearest neighbours, retrieval of similar cases, maps in two dimensions and
classes by words. Settings are chosen on the validation split, never on test.

To add a classifier: a function and a row of `FROZEN`; a map: a row of `PROJECTIONS`.
"""
