"""The arrays of a stranger's .npz file: read without pickle, and into no more memory than the file may ask for.

`numpy.load` believes what a header says of an array's size, and unpacks whatever a few kilobytes were packed from.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Collection
from typing import IO, Any

import numpy as np

Array = np.ndarray[Any, Any]
# What is larger must be stored as it is, so that the file is as large.
LARGEST = 1 << 30
SHOWN = 10


def read_npz(file: IO[bytes], known: Collection[str]) -> dict[str, Array]:
    """Return the arrays by name.

    Raises
    ------
    ValueError
        A file that is none, names that are not among the ``known``, or given twice; arrays of objects, or of another
        size than their headers say; a file that unpacks to more than both 1 GiB and its own size.
    OSError
        It cannot be read.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError("what is no .npz file, as numpy.savez writes it")
    try:
        with zipfile.ZipFile(file) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            unknown = [name for name in members if name not in known]
            if unknown or len(members) != len(archive.infolist()):
                raise ValueError("an array twice" if not unknown else ", ".join(map(repr, list(members)[:SHOWN])))
            largest = max(LARGEST, file.seek(0, os.SEEK_END))
            if sum(member.file_size for member in members.values()) > largest:
                raise ValueError(f"arrays that are larger together than {largest >> 20} MiB, though they are packed")
            return {name: _array(archive, member) for name, member in members.items()}
    except (OSError, ValueError):
        raise
    except Exception as problem:  # whatever a library says to what is no archive, or no header
        raise ValueError(f"what cannot be read: {problem or type(problem).__name__}") from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    # The other methods unpack all at once, however little is asked for.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename!r}, packed as numpy.savez does not")
    with archive.open(member) as stream:
        # Any array of numbers has a header of the first version, which is short.
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{member.filename!r}, which is no array of numbers")
        shape, in_columns, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.hasobject:
            raise ValueError(f"{member.filename!r}, which is an array of objects")
        size, there = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
        content = stream.read(size + 1) if size == there else b""
        if len(content) != size:
            raise ValueError(f"{member.filename!r}, whose {there} bytes are no {dtype} of shape {shape}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if in_columns else "C")
