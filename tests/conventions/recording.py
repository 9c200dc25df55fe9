"""Native results on file, so that an adapter in another environment can be held against them.

With CLASSWEIGHT_RECORD set to a folder, every result that `assert_same` sees is written there. In any environment that
has this library, ``python tests/conventions/recording.py FOLDER --backend torch --backend chainer@/path/to/python``
hands the same batches to the adapters: Chainer's number from PyTorch, Keras's number from Chainer.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np


def record(native: tuple[Any, Any], spec: Any, logits: Any, arguments: dict[str, Any], eps: float) -> None:
    """Write one native result beside the request that a conformance worker takes, if asked to."""
    folder = os.environ.get("CLASSWEIGHT_RECORD")
    if not folder:
        return
    test = os.environ["PYTEST_CURRENT_TEST"].removesuffix(" (call)")
    backend = os.environ.get("KERAS_BACKEND", "")
    Path(folder).mkdir(parents=True, exist_ok=True)
    upstream = arguments.pop("upstream")
    targets = arguments.pop("targets")
    entry = {
        "id": f"{test}{backend and f' on {backend}'}",
        "spec": spec.to_dict(),
        "logits": _packed(logits),
        "targets": _packed(targets),
        "upstream": _packed(upstream),
        "arguments": {name: _packed(value) for name, value in arguments.items() if value is not None},
        "native": [None if x is None else _packed(np.asarray(x)) for x in native],
        "eps": eps,
    }
    with (Path(folder) / f"{Path(test.partition('::')[0]).stem}{backend}-{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


def _packed(x: Any) -> Any:
    if type(x) in (int, float):
        return x
    if isinstance(x, tuple):
        return [_packed(item) for item in x]
    x = np.asarray(x)
    data = base64.b64encode(x.astype(x.dtype.newbyteorder("<")).tobytes()).decode()
    return {"dtype": x.dtype.name, "shape": list(x.shape), "data": data}


def _unpacked(x: dict[str, Any]) -> Any:
    from classweight.conformance.floats import unpack

    return unpack(base64.b64decode(x["data"]), x["dtype"], tuple(x["shape"]))


def difference(native: Any, ours: Any, eps: float, scale: float) -> str | None:
    """Return how two results differ by more than both roundings, or None."""
    if native.shape != ours.shape:
        return f"shape {ours.shape}, not {native.shape}"
    both_nan = np.isnan(native) & np.isnan(ours)
    with np.errstate(invalid="ignore"):
        close = np.abs(native - ours) <= 4096 * eps * np.abs(native) + 32 * eps * scale
    wrong = ~(close | both_nan | (native == ours))
    if not wrong.any():
        return None
    first = tuple(np.argwhere(wrong)[0])
    return f"{ours[first]!r}, not {native[first]!r}"


def main() -> int:
    """Replay records; print a line a backend and each difference; return 1 if there is one."""
    from classweight.conformance.client import Worker

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backend", action="append", required=True)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="replay each Nth record only")
    options = parser.parse_args()
    lines = [line for path in sorted(options.folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    entries = [json.loads(line) for line in lines[:: options.every]]

    def replay(name: str) -> list[str]:
        with Worker(name, timeout=300) as worker:
            return [problem for entry in entries if (problem := _problem(entry, worker))]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = dict(zip(options.backend, pool.map(replay, options.backend), strict=True))
    for name, found in problems.items():
        print(
            f"{name.partition('@')[0]}: {len(entries) - len(found)} of {len(entries)} native results agree",
            *found,
            sep="\n  ",
        )
    return 0 if entries and not any(problems.values()) else 1


def _problem(entry: dict[str, Any], worker: Any) -> str | None:
    """Return how a worker's result differs from the native one, in a sentence, or None."""
    reply = worker.ask({key: entry[key] for key in entry if key not in ("native", "eps")})
    if "loss" not in reply:
        return f"refused: {reply} [{entry['id']}, {entry['spec']}]"
    for what, native in zip(("loss", "gradient"), entry["native"], strict=True):
        if native is None or reply[what] is None:
            continue
        native = _unpacked(native)
        scale = float(np.nanmax(np.abs(native), initial=0)) if what == "gradient" else 0.0
        eps = max(entry["eps"], float(np.finfo(reply[what]["dtype"]).eps))
        found = difference(native, _unpacked(reply[what]), eps, scale)
        if found is not None:
            return f"{what} is {found} [{entry['id']}, {entry['spec']}]"
    return None


if __name__ == "__main__":
    sys.exit(main())
