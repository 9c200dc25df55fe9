"""Workers and files of strangers: whatever they say costs its case and one line, and little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from classweight import SoftmaxCrossEntropy, from_dict
from classweight.conformance.cases import Case, Exact, TypedArray
from classweight.conformance.client import Worker
from classweight.conformance.judge import judge
from classweight.conformance.replies import LONGEST, hello_of, reply_of
from classweight.streams import parse_json

HELLO = {"protocol": 1, "backend": "x", "framework": "x", "sample_weight": True, "versions": {}}
ARRAY = {"dtype": "float32", "shape": [0], "data": ""}


def worker(tmp_path: Path, body: str) -> str:
    """Return the name of a backend whose worker says hello, then runs ``body`` for each line that it reads."""
    script = tmp_path / "stranger.py"
    script.write_text(f"import os, sys, time\nprint({json.dumps(HELLO)!r}, flush=True)\nfor line in sys.stdin:\n{body}")
    (tmp_path / "stranger").write_text(f'#!/bin/sh\nexec {sys.executable} -P "{script}"\n')
    (tmp_path / "stranger").chmod(0o755)
    return f"x@{tmp_path}/stranger"


def arrays(**changes: Any) -> str:
    return json.dumps({"id": "case", "loss": ARRAY, "gradient": {**ARRAY, **changes}})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("    print('x' * 100, flush=True)", "which is no JSON"),
        (f"    os.write(1, b'x' * {LONGEST + 10})", "a line of more than 64 MiB"),
        ("    print('[' * 10**6, flush=True)", "which is no JSON"),
        ("    print('1' * 10**5, flush=True)", "which is no JSON"),
        ("    os.write(1, bytes(range(256)))\n    print(flush=True)", "which is no JSON"),
        (f"    print({arrays(shape=[0, 10**30])!r}, flush=True)", "a gradient that is no array"),
        (f"    print({arrays(shape=[10**12])!r}, flush=True)", "a gradient that is no array"),
        (f"    print({arrays(shape=[1] * 64, data='AAAAAA==')!r}, flush=True)", "a gradient that is no array"),
        (f"    print({arrays(dtype='object')!r}, flush=True)", "a gradient that is no array: the type 'object'"),
        (f"    print({arrays(shape=[1], data=['0x1p+99999'])!r}, flush=True)", "a gradient that is no array"),
        (f"    print({arrays(shape=[1], data=[None])!r}, flush=True)", "a gradient that is no array"),
        (f"    print({arrays(dtype='int64', shape=[1], data=[10**400])!r}, flush=True)", "a gradient that is no array"),
        (f"    print({arrays(dtype='int64', shape=[1], data=[[1]])!r}, flush=True)", "a gradient that is no array"),
        ("    print('{\"id\": \"cas', end='', flush=True)\n    os._exit(5)", "the worker ended with status 5"),
        ("    time.sleep(60)", "the worker hung for 5 s"),
        ("    sys.stderr.write('last words' * 10**5)\n    os._exit(5)", "the worker ended with status 5"),
    ],
    ids=[
        *("garbage", "endless-line", "nested", "digits", "binary", "zero-by-10^30", "10^12", "64-axes", "objects"),
        *("overflow", "null", "400-digits", "nested-data", "cut", "silence", "endless-stderr"),
    ],
)
def test_a_hostile_answer_costs_its_case_and_one_line(tmp_path: Path, body: str, says: str) -> None:
    with Worker(worker(tmp_path, body), timeout=5 if "sleep" in body else 60) as stranger:
        crash = stranger.ask({"id": "case"})["crash"]
        assert says in crash
        assert len(crash) < 10_000


def test_a_worker_that_never_stops_is_stopped(tmp_path: Path) -> None:
    body = f"    while True: print({arrays()!r}, flush=True)"
    with Worker(worker(tmp_path, body)) as stranger:
        assert "crash" not in stranger.ask({"id": "case"})
        process = stranger._process
    assert process is not None and process.poll() is not None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b'{"protocol": 1}',
        b'{"protocol": {}}',
        b'{"protocol": 1, "framework": [], "versions": {}}',
        b'{"protocol": 1, "framework": "x", "versions": []}',
        b"[" * 10**6,
        b'{"protocol": ' + b"9" * 10**5 + b"}",
    ],
)
def test_what_is_no_hello_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        hello_of(line)


def test_a_hello_of_many_words_is_shortened_and_cannot_move_the_cursor() -> None:
    said = hello_of(json.dumps({**HELLO, "framework": "\x1b[2J" + "x" * 10**6}).encode())
    assert len(said["framework"]) < 10_000
    assert "\x1b" not in said["framework"]


@pytest.mark.parametrize(
    "error",
    [{}, [], None, {"type": []}, {"type": [1], "message": ""}, {"type": "ValueError", "message": ""}],
    ids=str,
)
def test_an_error_that_is_none_is_refused(error: Any) -> None:
    with pytest.raises(ValueError, match="an error without a type"):
        reply_of(json.dumps({"id": "case", "error": error}).encode(), "case")


def case(**changes: Any) -> dict[str, Any]:
    number = {"dtype": "float32", "shape": [1, 1], "data": ["0x1p+0"]}
    made = {
        "id": "x",
        "clause": "x",
        "tier": "required",
        "flags": [],
        "spec": SoftmaxCrossEntropy().to_dict(),
        "logits": number,
        "targets": {"dtype": "int64", "shape": [1], "data": [0]},
        "arguments": {},
        "upstream": None,
        "rule": "budget",
        "budget": {"loss": 1, "gradient": 1},
        "expected": {name: {"shape": [], "values": ["0"]} for name in ("loss", "gradient")},
    }
    return {**made, **changes}


@pytest.mark.parametrize(
    "shape",
    [[10**12], [0, 10**30], [1] * 33, [-1, -1], ["a"], None, {}, [1.0], [True]],
    ids=lambda shape: str(shape)[:20],
)
def test_the_shape_of_a_vector_is_that_of_its_numbers(shape: Any) -> None:
    assert Case.from_json(case()).loss is not None
    with pytest.raises(ValueError, match=r"."):
        TypedArray.from_json({"dtype": "float32", "shape": shape, "data": ["0x1p+0"]})
    with pytest.raises(ValueError, match=r"."):
        Exact.from_json({"shape": shape, "values": ["0"]})


@pytest.mark.parametrize("decimal", ["1e99999", "1e999999999", "9" * 10**6, "0x1", "1_0", "1e+0010000", 1.0, None])
def test_a_decimal_is_of_bounded_length(decimal: Any) -> None:
    with pytest.raises(ValueError, match="is no decimal"):
        Exact.from_json({"shape": [], "values": [decimal]})


@pytest.mark.parametrize("depth", [50, 400, 900, 100_000])
def test_a_nested_spec_is_refused_in_one_line(depth: int, tmp_path: Path) -> None:
    text = json.dumps(SoftmaxCrossEntropy().to_dict())
    text = text.replace('"class_weight": null', f'"class_weight": {"[" * depth}1{"]" * depth}')
    with pytest.raises((TypeError, ValueError)) as refused:
        from_dict(parse_json(text))
    assert len(str(refused.value)) < 1000
    (tmp_path / "spec.json").write_text(text)
    command = ["conformance", "--backend", "x:y", "--spec", "spec.json"]
    run = subprocess.run(
        [sys.executable, "-P", "-m", "classweight", *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("description", [None, [], "x", 1, [["loss", "SoftmaxCrossEntropy"]], {1: 2}, {"loss": []}])
def test_what_is_no_description_is_refused(description: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        from_dict(description)


def test_a_backend_without_a_gradient_fails_and_is_not_skipped() -> None:
    of_suite = Case.from_json(case())
    loss = TypedArray.of(0.0, "float32").to_wire()
    verdicts = judge(of_suite, {"id": "x", "loss": loss, "gradient": None})
    assert [verdict.column for verdict in verdicts] == ["loss", "gradient"]
    assert verdicts[1].failures[0].startswith("gradient is None, but should be numbers [")
    own = Case.from_json(case(clause="own"))
    assert [v.column for v in judge(own, {"id": "x", "loss": loss, "gradient": None})] == ["loss"]
