"""A small fixed part of the random mutants, on NumPy without a compiler: each is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .page import key, merged, reason
from .random_mutants import ROOT


def test_random_changes_are_killed_and_the_script_says_how(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    script = Path(__file__).parent / "random_mutants.py"
    options = ["--no-compiler", "--backend", "numpy", "--count", "12", "--elements", "1", "--out", str(out)]
    file = "classweight/compute/closed_form.py"
    run = subprocess.run([sys.executable, str(script), *options, file], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 12
    assert sum(line["result"] == "killed" for line in lines) >= 8
    assert all(" should be " in line["why"] or "Error" in line["why"] for line in lines if line["result"] == "killed")


def test_what_one_backend_kills_is_killed() -> None:
    line = {"file": "f", "function": "g", "before": "a", "after": "b", "line": 1}
    results = merged([{**line, "result": result} for result in ("unreached", "killed", "survived")])
    assert [(key(found), found["result"]) for found in results] == [(("f", "g", "a", "b"), "killed")]


def test_what_is_not_reached_needs_a_reason_for_its_function_alone() -> None:
    line = {"file": "f", "function": "g", "before": "a", "after": "b", "line": 1, "result": "unreached"}
    why = {("f", "g"): "only elsewhere", ("f", "h", "a", "b"): "the same number"}
    assert reason(line, why) == "only elsewhere"
    assert reason({**line, "result": "survived"}, why) is None
    assert reason({**line, "function": "h", "result": "survived"}, why) == "the same number"
