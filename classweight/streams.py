"""What the command line reads and writes: files, standard input, and readers that leave early."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

UNUSABLE = 2
STANDARD_INPUT = Path("-")
# No spec and no list of known failures is larger; a file that never ends is.
LARGEST_TEXT = 1 << 26


def read(path: Path, largest: int = LARGEST_TEXT) -> bytes:
    """Return what a file holds, or standard input for ``-``.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is larger than ``largest`` bytes.
    """
    if path == STANDARD_INPUT:
        content = sys.stdin.buffer.read(largest + 1)
    else:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"{path} is larger than the {largest >> 20} MiB that are read of it")
    return content


def read_json(path: Path) -> Any:
    """Return the JSON in a file or in standard input, as `read` and `parse_json` do."""
    return parse_json(read(path))


def parse_json(text: str | bytes) -> Any:
    """Return what JSON says.

    Raises
    ------
    ValueError
        It is none, or nested deeper than Python's stack.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def check_folder(option: str, file: Path | None) -> None:
    """Refuse a file that cannot be written, before the work and not after it."""
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"{option} must name a file in a folder that exists; got {str(file)!r}")


def say(text: str = "", *, error: bool = False, end: str = "\n") -> None:
    """Print. A reader that has gone, such as ``head``, has had enough: the exit status is what it would have been."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(text, file=stream, end=end, flush=True)
    except BrokenPipeError:
        # What is left in the buffer is written when Python ends, and must not fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def refused(command: str, problem: object) -> int:
    """Say why a command cannot be run, and return its exit status."""
    say(f"classweight {command}: {problem}", error=True)
    return UNUSABLE
