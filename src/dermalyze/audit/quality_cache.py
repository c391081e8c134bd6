"""What was measured on a run's images, kept in a file, so that a report on subgroups need not decode them again."""

from __future__ import annotations

import json

import pandas as pd

from dermalyze.audit.image_statistics import TONE, ImageStatistics
from dermalyze.core.atomic import replacing
from dermalyze.core.run import Run
from dermalyze.errors import ModelError

KEPT = ("brightness", "contrast", "sharpness", "red", "green", "blue", *TONE)
FORMAT_VERSION = 1
_FORMAT_KEY, _COLUMNS = b"dermalyze.looks", ("image_id", "sha256", *KEPT)


def write_statistics(run: Run, frame: pd.DataFrame, looks: ImageStatistics) -> None:
    """Keep the measures, each beside the SHA-256 of the file that it was measured on.

    Args:
        run: whose images they are.
        frame: rows with `image_id` and `sha256`.
        looks: of the same rows.

    Raises:
        ResourceError: the run cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = {name: pa.array(frame[name].astype(str).tolist(), pa.string()) for name in _COLUMNS[:2]}
    numbers = {name: pa.array(looks.frame[name].to_numpy(dtype="float64"), pa.float64()) for name in KEPT}
    table = pa.table({**texts, **numbers}).replace_schema_metadata({_FORMAT_KEY: json.dumps(FORMAT_VERSION).encode()})
    with replacing(run.looks_path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_statistics(run: Run) -> pd.DataFrame | None:
    """The measures by `image_id`, `sha256` among the columns; None where none were kept.

    Raises:
        ModelError: damaged, or of another version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not run.looks_path.exists():
        return None
    remedy = f"delete it and run: dermalyze audit {run.root}"
    try:
        table = pq.read_table(run.looks_path, use_threads=False, page_checksum_verification=True)
        version = json.loads((table.schema.metadata or {}).get(_FORMAT_KEY, b"0"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ModelError(f"{run.looks_path.name}: damaged ({type(error).__name__}); {remedy}") from error
    if version != FORMAT_VERSION or set(table.column_names) != set(_COLUMNS):
        raise ModelError(f"{run.looks_path.name}: not a file of looks that this dermalyze reads; {remedy}")
    return table.to_pandas().set_index("image_id")


def with_statistics(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with `KEPT` beside them: null where an image was not measured, or is another one by now.

    Args:
        run: whose images they are.
        rows: by image_id, with `sha256`.
    """
    known = read_statistics(run)
    if known is None:
        return rows.assign(**dict.fromkeys(KEPT, float("nan")))
    found = known.reindex(rows.index)
    return rows.assign(**found[list(KEPT)].where(found["sha256"] == rows["sha256"]))
