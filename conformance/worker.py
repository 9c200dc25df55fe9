"""One backend in one interpreter, answering a line of JSON with a line of JSON; PROTOCOL.md is the protocol.

``python -m classweight.conformance.worker --backend torch``
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from collections.abc import Mapping
from typing import IO, Any

from classweight import from_dict

from .backends import Backend, NotRun, make_backend
from .layouts import NoSuchMemory
from .replies import PROTOCOL


def answer(backend: Backend, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reply to one request: loss and gradient, an error, or why it was not run."""
    reply: dict[str, Any] = {"id": request["id"]}
    try:
        logits, targets, upstream = (_decode(backend, request[name]) for name in ("logits", "targets", "upstream"))
        arguments = {name: _decode(backend, value) for name, value in request["arguments"].items()}
        before = _decode(backend, request.get("before"))
        if layout := request.get("layout"):
            logits = backend.glue.lay(logits, layout)
            if layout != "far":  # logits alone are that large
                targets, upstream = (x if x is None else backend.glue.lay(x, layout) for x in (targets, upstream))
    except (NotRun, NoSuchMemory) as reason:
        return {**reply, "not_run": str(reason)}
    try:
        spec = from_dict(request["spec"])
        if before is not None:
            backend.glue.run(spec, logits, before, arguments, upstream)
        loss, gradient = backend.glue.run(spec, logits, targets, arguments, upstream, request.get("again", False))
        return {**reply, "loss": _encode(backend, loss), "gradient": _encode(backend, gradient)}
    except NotRun as reason:
        return {**reply, "not_run": str(reason)}
    except Exception as error:
        types = [kind.__name__ for kind in type(error).__mro__[:-2]]
        return {**reply, "error": {"type": types, "message": str(error)}}


def _decode(backend: Backend, value: Any) -> Any:
    if isinstance(value, Mapping):
        return backend.glue.decode(base64.b64decode(value["data"]), value["dtype"], tuple(value["shape"]))
    return tuple(_decode(backend, item) for item in value) if isinstance(value, list) else value


def _encode(backend: Backend, x: Any) -> dict[str, Any] | None:
    if x is None:
        return None
    data, dtype, shape = backend.glue.encode(x)
    return {"dtype": dtype, "shape": list(shape), "data": base64.b64encode(data).decode()}


def serve(requests: IO[str], replies: IO[str], name: str, framework: str | None) -> None:
    """Say hello, then answer until the requests end."""

    def send(message: Mapping[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        backend = make_backend(name, framework)
    except Exception as error:
        send({"protocol": PROTOCOL, "backend": name, "failed": f"{type(error).__name__}: {error}"})
        return
    send(
        {
            "protocol": PROTOCOL,
            "backend": name,
            "framework": backend.glue.framework,
            "sample_weight": backend.takes_sample_weight,
            "validate": backend.takes_validate,
            "versions": backend.versions,
        }
    )
    for line in requests:
        send(answer(backend, json.loads(line)))


def main() -> None:
    """Keep stdout for replies: what a user's code or a framework prints goes to stderr, whoever writes it."""
    parser = argparse.ArgumentParser(prog="classweight.conformance.worker", description=__doc__)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--framework")
    options = parser.parse_args()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, replies, options.backend, options.framework)


if __name__ == "__main__":
    main()
