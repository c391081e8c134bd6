"""Images, tables, manifest, splits, caches: everything between a folder of photographs and a batch."""
