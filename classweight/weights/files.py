"""Labels that lie in files, counted: tables, arrays of NumPy, and folders of one class each."""

from __future__ import annotations

import csv
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..answers.npz import read_npz
from ..errors import refuse
from .counts import ClassCounts

TABLES = (".csv", ".tsv", ".parquet", ".pq")
KINDS = ".csv, .tsv, .parquet, .npy, .npz, or a folder of one folder a class"


def count_file(path: Path, column: str | None = None, *, names: bool = False) -> ClassCounts:
    """Return the counts of the labels in a file.

    Parameters
    ----------
    path : Path
        A table (.csv, .tsv, .parquet), an array (.npy, .npz, read without pickle) of indices or names, or a folder of
        one folder a class, in which every file is a sample.
    column : str, optional
        The column of a table, or the array's name in an .npz file; where there is one only, that.
    names : bool
        Whether whole numbers are names, and not the indices of classes from 0 on.

    Raises
    ------
    ValueError
        A file of another kind, or none; a column that is not there or not given; a label that is missing.
    ImportError
        A .parquet file without pyarrow.
    """
    if path.is_dir():
        return _folders(path)
    kind = path.suffix.lower()
    if kind in TABLES:
        counts = (
            _delimited(path, column, "\t" if kind == ".tsv" else ",") if kind[1] in "ct" else _parquet(path, column)
        )
    elif kind == ".npy":
        return _array(np.load(path, mmap_mode="r", allow_pickle=False), names)
    elif kind == ".npz":
        return _array(_packed(path, column), names)
    else:
        refuse("labels", f"be {KINDS}", repr(str(path)))
    if missing := [row for label, row in counts[1].items() if label in (None, "") or label != label]:
        refuse("labels", "be there in every row", f"none in row {missing[0]}")
    tally = counts[0]
    if not names and all(str(label).strip().removeprefix("-").isdecimal() for label in tally):
        return ClassCounts.from_counts(Counter({int(label): n for label, n in tally.items()}))
    return ClassCounts.from_counts({str(label): n for label, n in tally.items()})


def _array(values: np.ndarray[Any, Any], names: bool) -> ClassCounts:
    return ClassCounts().update(values.astype(str) if names else values)


def _packed(path: Path, column: str | None) -> np.ndarray[Any, Any]:
    with path.open("rb") as file:
        try:
            found = [name.removesuffix(".npy") for name in zipfile.ZipFile(file).namelist()]
            arrays = read_npz(file, found)
        except (zipfile.BadZipFile, ValueError) as problem:
            refuse("labels", "be an .npz file of numbers or names, as numpy.savez writes it", problem)
    return arrays[_chosen(column, found)]


def _chosen(column: str | None, columns: list[str]) -> str:
    if column is None and len(columns) == 1:
        return columns[0]
    if column not in columns:
        came = "none" if column is None else repr(column)
        refuse("column", f"be one of {', '.join(map(repr, columns)) or 'no columns'}", came)
    return column


def _tally(labels: Iterable[tuple[int, Any]]) -> tuple[Counter[Any], dict[Any, int]]:
    """Return how often each label occurs, and in which row first."""
    counts: Counter[Any] = Counter()
    first: dict[Any, int] = {}
    for row, label in labels:
        counts[label] += 1
        first.setdefault(label, row)
    return counts, first


def _delimited(path: Path, column: str | None, delimiter: str) -> tuple[Counter[Any], dict[Any, int]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter=delimiter)
        chosen = _chosen(column, list(rows.fieldnames or ()))
        return _tally((rows.line_num, row[chosen]) for row in rows)


def _parquet(path: Path, column: str | None) -> tuple[Counter[Any], dict[Any, int]]:
    try:
        from pyarrow import parquet
    except ImportError as cause:
        message = f"a .parquet file needs pyarrow: pip install pyarrow ({cause})"
        raise ImportError(message, name="pyarrow") from cause
    file = parquet.ParquetFile(path)
    chosen = _chosen(column, file.schema_arrow.names)
    labels = (label for batch in file.iter_batches(columns=[chosen]) for label in batch.column(0).to_pylist())
    return _tally(enumerate(labels, 1))


def _folders(path: Path) -> ClassCounts:
    folders = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not folders:
        refuse("labels", "be a folder of one folder a class", f"none in {str(path)!r}")
    counts = {
        folder.name: sum(each.is_file() and not each.name.startswith(".") for each in folder.rglob("*"))
        for folder in folders
    }
    return ClassCounts.from_counts(counts, class_names=counts)
