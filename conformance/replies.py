"""What a worker says, held to the protocol before anything believes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classweight.streams import parse_json

from .cases import TypedArray

PROTOCOL = 1
# Of one line; no case's reply is nearly as long.
LONGEST = 1 << 26
LONGEST_TEXT = 1 << 13


def hello_of(line: bytes) -> dict[str, Any]:
    """Return a worker's first message.

    Raises
    ------
    ValueError
        It is none: what came in its place, to be read after "the worker answered".
    """
    hello = _object(line)
    if "failed" in hello:
        return {"failed": text(hello["failed"])}
    if hello.get("protocol") != PROTOCOL:
        raise ValueError(f"that it speaks protocol {hello.get('protocol')!r:.80}, not {PROTOCOL}")
    versions = hello.get("versions")
    if not isinstance(versions, Mapping) or not isinstance(hello.get("framework"), str):
        raise ValueError(f"{_short(line)}, which is no hello")
    return {
        "framework": text(hello["framework"]),
        "sample_weight": hello.get("sample_weight") is not False,
        "versions": {text(name): text(version) for name, version in versions.items()},
    }


def reply_of(line: bytes, case: str) -> dict[str, Any]:
    """Return the reply to a case.

    Raises
    ------
    ValueError
        It is none: what came in its place, to be read after "the worker answered".
    """
    reply = _object(line)
    if reply.get("id") != case:
        raise ValueError(f"{reply.get('id')!r:.80} to {case!r}")
    if "not_run" in reply:
        return {"not_run": text(reply["not_run"])}
    if "error" in reply:
        error = reply["error"]
        types = error.get("type") if isinstance(error, Mapping) else None
        if not isinstance(types, list) or not types or not all(isinstance(name, str) for name in types):
            raise ValueError("an error without a type")
        return {"error": {"type": [text(name) for name in types], "message": text(error.get("message"))}}
    if "loss" not in reply:
        raise ValueError("neither a loss, nor an error, nor why it was not run")
    arrays = {name: reply.get(name) for name in ("loss", "gradient")}
    for name, array in arrays.items():
        try:
            if array is not None:
                TypedArray.from_json(array)
        except ValueError as problem:
            raise ValueError(f"a {name} that is no array: {problem}") from None
    return arrays


def text(said: Any) -> str:
    """Return what a stranger said, or wrote to stderr, as it may be printed: not too long, no control codes."""
    said = str(said)
    shown = said if len(said) <= LONGEST_TEXT else said[:LONGEST_TEXT] + "..."
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in shown)


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > LONGEST:
        raise ValueError(f"a line of more than {LONGEST >> 20} MiB")
    try:
        message = parse_json(line)
    except ValueError:
        raise ValueError(f"{_short(line)}, which is no JSON") from None
    if not isinstance(message, dict):
        raise ValueError(f"{_short(line)}, which is no object")
    return message


def _short(line: bytes) -> str:
    return repr(line[:80].decode(errors="replace").rstrip("\n"))
