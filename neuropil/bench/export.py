"""A run as one table, for other programs: CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Literal, get_args

from neuropil.bench.index import Table
from neuropil.bench.store import write_bytes
from neuropil.errors import ConfigError, MissingExtraError, nearest

Format = Literal["csv", "json", "parquet"]


def records(table: Table) -> list[dict[str, Any]]:
    """One flat record per trial: study, scale, arm, seed, then metrics and costs by `metric.` and `cost.` names.

    Every record has every column; what is undefined is None.
    """
    rows = table.rows
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    costs = dict.fromkeys(name for row in rows for name in row.cost)
    return [
        {
            "study": table.run.id,
            "scale": table.run.scale,
            "arm": row.arm,
            "seed": row.seed,
            **{f"metric.{name}": row.metrics.get(name) for name in metrics},
            **{f"cost.{name}": row.cost.get(name) for name in costs},
        }
        for row in rows
    ]


def write_export(table: Table, path: Path, format: Format) -> Path:
    """Write the table; numbers keep every bit. Raises MissingExtraError for Parquet without pyarrow."""
    if format not in get_args(Format):
        raise ConfigError(
            f"format: expected csv, json or parquet, got {format!r}{nearest(format, get_args(Format))}"
        )
    encode = {"csv": _csv, "json": _json, "parquet": _parquet}[format]
    write_bytes(path, encode(records(table)))
    return path


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(rows[0]) if rows else ["study", "scale", "arm", "seed"], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _json(rows: list[dict[str, Any]]) -> bytes:
    return (json.dumps(rows, indent=1, allow_nan=False) + "\n").encode()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    try:
        import pyarrow  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("Parquet needs pyarrow: pip install 'neuropil[parquet]'") from error
    kinds = {
        "study": pyarrow.string(),
        "scale": pyarrow.string(),
        "arm": pyarrow.string(),
        "seed": pyarrow.int64(),
    }
    names = list(rows[0]) if rows else list(kinds)
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in names])
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), sink)
    return bytes(sink.getvalue())
