"""Workers in processes of their own: what a crash, a hang or a print costs, and what a run reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from classweight import SoftmaxCrossEntropy
from classweight.cli import main
from classweight.conformance.client import BackendError, Worker
from classweight.conformance.explain import flags
from classweight.conformance.runner import KnownFailures

from ..documents import SVG, check

SPEC = SoftmaxCrossEntropy(class_weight=[1, 2, 5], ignore_index=-1, zero_denominator="nan", precision="exact")

TOYS = """
import os, sys, time
import numpy as np
from classweight import SoftmaxCrossEntropy
import classweight.adapters.numpy as cwn

spec = SoftmaxCrossEntropy(class_weight=[1, 2, 5], ignore_index=-1, zero_denominator="nan", precision="exact")
print("imported")

def right(logits, targets, sample_weight=None):
    return cwn.loss_and_grad(spec, logits, targets, sample_weight)

# What a first loss takes to compile is no case's time.
right(np.zeros((1, 3), "float32"), [0])

def talkative(logits, targets, sample_weight=None):
    print("hello")
    os.write(1, b"hello from C")
    os.system("echo hello from a child")
    return right(logits, targets, sample_weight)

def crashing(logits, targets, sample_weight=None):
    if len(logits) == 1:
        print("last words", flush=True)
        os._exit(3)
    return right(logits, targets, sample_weight)

def hanging(logits, targets, sample_weight=None):
    if len(logits) == 1:
        time.sleep(60)
    return right(logits, targets, sample_weight)

def unweighted(logits, targets):
    return right(logits, targets)

def wrong(logits, targets, sample_weight=None):
    loss, gradient = right(logits, targets, sample_weight)
    return loss, -gradient
"""


@pytest.fixture(autouse=True)
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toys.py").write_text(TOYS)
    (tmp_path / "spec.json").write_text(json.dumps(SPEC.to_dict()))
    (tmp_path / "deep.json").write_text("[" * 100_000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Conformance = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.fixture
def conformance(capsys: pytest.CaptureFixture[str]) -> Conformance:
    def run(*arguments: str) -> tuple[int, str, dict[str, Any]]:
        status = main(["conformance", "--json", "report.json", *arguments])
        captured = capsys.readouterr()
        report = Path("report.json")
        return status, captured.out + captured.err, json.loads(report.read_text()) if report.exists() else {}

    return run


def statuses(report: dict[str, Any]) -> dict[str, str]:
    (backend,) = report["backends"]
    return {case["id"]: case["status"] for case in backend["cases"]}


def test_a_loss_of_ones_own_is_judged_by_its_spec(conformance: Conformance) -> None:
    status, out, report = conformance("--backend", "toys:right", "--spec", "spec.json")
    assert status == 0, out
    found = statuses(report)
    assert set(found.values()) == {"passed"}
    assert {"own-confident-float32", "own-all-ignored-sample-weight-float64", "own-index-of-C-float32"} <= set(found)


@pytest.mark.parametrize("option", ["--spec", "--xfails"])
def test_a_file_may_come_from_standard_input(option: str, toys: Path) -> None:
    (toys / "known.txt").write_text("own-*\n")
    files = {"--spec": "spec.json", "--xfails": "known.txt"}
    options = [x for name, file in files.items() for x in (name, "-" if name == option else file)]
    command = ["conformance", "--backend", "toys:wrong", "--case", "own-normal-float32", *options]
    run = subprocess.run(
        [sys.executable, "-m", "classweight", *command], input=(toys / files[option]).read_bytes(), capture_output=True
    )
    assert (run.returncode, run.stderr) == (0, b"")
    assert b"1 known failure" in run.stdout


def test_a_reader_may_leave_early_and_the_status_stays(toys: Path) -> None:
    for name, status in {"right": 0, "wrong": 1}.items():
        ours, theirs = os.pipe()
        os.close(ours)
        command = ["conformance", "--backend", f"toys:{name}", "--spec", "spec.json", "--case", "own-normal-*"]
        run = subprocess.run(
            [sys.executable, "-m", "classweight", *command, "--json", "report.json"],
            stdout=theirs,
            stderr=subprocess.PIPE,
        )
        os.close(theirs)
        assert (run.returncode, run.stderr) == (status, b"")
        assert json.loads((toys / "report.json").read_text())["backends"]


def test_prints_do_not_reach_the_protocol(conformance: Conformance) -> None:
    status, out, _ = conformance("--backend", "toys:talkative", "--spec", "spec.json")
    assert status == 0, out
    assert "hello" not in out


@pytest.mark.parametrize(
    ("name", "says"),
    [("crashing", "the worker ended with status 3"), ("hanging", "the worker hung for 2 s and was killed")],
)
def test_a_crash_or_a_hang_costs_its_case_alone(conformance: Conformance, name: str, says: str) -> None:
    arguments = ("--backend", f"toys:{name}", "--spec", "spec.json", "--timeout", "2", "--case", "own-*-float32")
    status, out, report = conformance(*arguments)
    found = statuses(report)
    assert status == 1
    failed = sorted(case for case, came in found.items() if came == "failed")
    assert failed == ["own-one-row-float32", "own-one-row-sample-weight-float32"]
    assert list(found.values())[-1] == "passed"
    assert f"loss: {says}" in out
    if name == "crashing":
        assert "last words" in out


def test_a_loss_without_sample_weights_gets_none(conformance: Conformance) -> None:
    status, out, report = conformance("--backend", "toys:unweighted", "--spec", "spec.json")
    assert status == 0, out
    assert not [case for case in statuses(report) if "sample-weight" in case]


def test_a_wrong_gradient_fails_with_a_sentence_and_status_1(conformance: Conformance) -> None:
    status, out, report = conformance("--backend", "toys:wrong", "--spec", "spec.json", "--case", "own-normal-float64")
    assert status == 1
    assert "toys:wrong: failed: gradient[0, 0] is " in out
    assert "case own-normal-float64]" in out
    (backend,) = report["backends"]
    assert backend["clauses"]["own"]["loss"] == {"cases": 1, "passed": 1}
    assert backend["clauses"]["own"]["gradient"] == {"cases": 1, "passed": 0}


def test_known_failures_pass_and_an_unexpected_pass_fails(conformance: Conformance, toys: Path) -> None:
    arguments = ("--spec", "spec.json", "--case", "own-[nw]*-float32", "--xfails", "known.txt")
    (toys / "known.txt").write_text("# of this loss\ntoys:wrong/own-normal*  # sign\nown-wide-*\n")
    status, out, report = conformance("--backend", "toys:wrong", *arguments)
    assert status == 0, out
    assert set(statuses(report).values()) == {"known failure"}
    assert "4 known failures" in out
    status, out, report = conformance("--backend", "toys:right", *arguments)
    assert status == 1
    assert "unexpected pass: own-wide-float32" in out
    assert statuses(report)["own-normal-float32"] == "passed"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--backend", "toys:right"), "--spec must be given for 'toys:right'"),
        (("--backend", "nothing:right", "--spec", "spec.json"), "No module named 'nothing'"),
        (("--backend", "toys:missing", "--spec", "spec.json"), "missing"),
        (("--backend", "torch:fast"), "--spec must be given"),
        (("--backend", "numpy@/no/python"), "/no/python cannot be started"),
        (("--backend", "toys:right", "--spec", "spec.json", "--framework", "mxnet"), "`framework` must be one of"),
        (("--backend", "numpy", "--case", "no-such-case"), "no case has such a name"),
        (("--xfails", "no-such-file"), "no-such-file"),
        (("--xfails", "-", "--spec", "-"), "--spec and --xfails must not both be -"),
        (("--spec", "/dev/zero"), "/dev/zero is larger than the 64 MiB that are read of it"),
        (("--spec", "toys.py"), "Expecting value"),
        (("--spec", "deep.json"), "JSON is nested too deeply"),
        (("--json", "no-such-folder/report.json"), "no-such-folder/report.json"),
    ],
)
def test_what_cannot_be_run_is_status_2_in_one_sentence(
    conformance: Conformance, arguments: tuple[str, ...], says: str
) -> None:
    status, out, _ = conformance(*arguments)
    assert status == 2
    assert says in out
    assert "Traceback" not in out


def test_a_framework_that_is_asked_for_and_missing_is_an_error(tmp_path: Path, conformance: Conformance) -> None:
    (tmp_path / "without_torch").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c \"import sys; sys.modules['torch'] = None; import runpy; "
        "sys.argv = sys.argv[:1] + ['--backend', 'torch']; runpy.run_module('classweight.conformance.worker', "
        "run_name='__main__')\"\n"
    )
    (tmp_path / "without_torch").chmod(0o755)
    status, out, _ = conformance("--backend", f"torch@{tmp_path}/without_torch")
    assert status == 2
    assert "ImportError" in out


def test_a_backend_in_another_interpreter(conformance: Conformance) -> None:
    name = f"numpy@{sys.executable}"
    status, out, report = conformance("--backend", name, "--clause", "mask")
    assert status == 0, out
    assert report["backends"][0]["name"] == name
    assert report["backends"][0]["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))


def test_the_table_and_the_sweeps_of_two_backends(conformance: Conformance) -> None:
    arguments = ("--clause", "sweeps", "--clause", "mask", "--elements", "8000")
    status, out, report = conformance("--backend", "numpy", "--backend", "torch", *arguments)
    assert status == 0, out
    lines = [line.split() for line in out.splitlines()]
    assert lines[1] == ["loss", "gradient", "errors", "numpy", "torch"]
    mask = next(line for line in lines if line[:1] == ["mask"])
    assert mask[:4] == ["mask", "28", "28", "2"] and len(mask) == 8
    assert ["gradient", "passed", "28/28", "28/28"] in lines
    assert ["bits", "that", "differ", "-", "0"] in lines
    sweeps = {backend["name"]: backend["sweeps"] for backend in report["backends"]}
    assert sweeps["numpy"]["exact"]["elements"] == sweeps["torch"]["exact"]["elements"] >= 8000
    assert sweeps["torch"]["native"]["wrong"] == 0
    assert report["differing_elements"]["exact"]["differing"] <= sweeps["numpy"]["exact"]["near_ties"]
    differing = report["differing_elements"]["exact"]
    assert differing["of"] == {"torch": differing["differing"]}
    assert f"exact: {differing['differing']} of {differing['elements']:,} elements differ between backends" in out


def test_the_table_of_two_backends_shows_where_one_fails(conformance: Conformance) -> None:
    arguments = ("--spec", "spec.json", "--case", "own-normal-*")
    status, out, report = conformance("--backend", "toys:right", "--backend", "toys:wrong", *arguments)
    assert status == 1
    lines = [line.split() for line in out.splitlines()]
    row = next(line for line in lines if line[:1] == ["own"])
    assert row[-2:] == ["4", "failed"]
    assert ["gradient", "passed", "4/4", "0/4"] in lines
    # The signs of all gradients of the two float32 cases, in exact precision.
    assert report["differing_elements"]["exact"]["differing"] > 0
    assert ["bits", "that", "differ", "-", str(report["differing_elements"]["exact"]["differing"])] in lines


def test_the_table_of_one_backend(conformance: Conformance) -> None:
    _, out, _ = conformance("--backend", "numpy", "--clause", "mask")
    lines = out.splitlines()
    assert lines[0].startswith("numpy (numpy ")
    assert lines[1].split() == ["clause", "loss", "gradient", "errors", "worst", "ULP", "not", "rounded", "not", "run"]
    assert lines[2].split()[:4] == ["mask", "28/28", "28/28", "2/2"]


def test_bfloat16_without_its_package_is_counted_and_not_passed(tmp_path: Path, conformance: Conformance) -> None:
    (tmp_path / "ml_dtypes.py").write_text("raise ImportError('hidden')")
    (tmp_path / "hide").write_text(
        f'#!/bin/sh\nshift\nPYTHONPATH="{tmp_path}:$PYTHONPATH" exec {sys.executable} -P "$@"\n'
    )
    (tmp_path / "hide").chmod(0o755)
    status, out, report = conformance("--backend", f"numpy@{tmp_path}/hide", "--case", "class_weight-list-*")
    assert status == 0, out
    found = statuses(report)
    assert found["class_weight-list-bfloat16-exact"] == "not run"
    assert found["class_weight-list-float16-exact"] == "passed"
    assert "2 not run: NumPy has bfloat16 only with the package ml_dtypes" in out
    status, _, _ = conformance("--backend", f"numpy@{tmp_path}/hide", "--case", "class_weight-list-bfloat16-*")
    assert status == 1  # nothing was run at all


def test_the_command_and_the_module_are_the_same() -> None:
    script = Path(sys.executable).parent / "classweight"
    runs = [
        subprocess.run([*command, "conformance", "--help"], capture_output=True, text=True, check=True).stdout
        for command in ([str(script)], [sys.executable, "-P", "-m", "classweight"])
    ]
    assert runs[0] == runs[1]
    assert "--backend" in runs[0]


@pytest.mark.parametrize("reply", ["no json", '["a list"]', '{"id": "another"}'])
def test_a_worker_that_breaks_the_protocol_fails_its_case(tmp_path: Path, reply: str) -> None:
    hello = json.dumps({"protocol": 1, "backend": "x", "framework": "x", "sample_weight": True, "versions": {}})
    (tmp_path / "broken").write_text(f"#!/bin/sh\necho '{hello}'\nwhile read line; do echo '{reply}'; done\n")
    (tmp_path / "broken").chmod(0o755)
    with Worker(f"x@{tmp_path}/broken") as worker:
        for _ in range(2):
            assert "the worker answered" in worker.ask({"id": "case"})["crash"]


def test_a_worker_of_another_protocol_is_refused(tmp_path: Path) -> None:
    (tmp_path / "newer").write_text("#!/bin/sh\necho '{\"protocol\": 2}'\n")
    (tmp_path / "newer").chmod(0o755)
    with pytest.raises(BackendError, match="it speaks protocol 2, not 1"):
        Worker(f"x@{tmp_path}/newer").start()


def test_a_worker_that_does_not_read_is_killed_though_the_request_is_large(tmp_path: Path) -> None:
    hello = json.dumps({"protocol": 1, "backend": "x", "framework": "x", "sample_weight": True, "versions": {}})
    (tmp_path / "deaf").write_text(f"#!/bin/sh\necho '{hello}'\nexec sleep 60\n")
    (tmp_path / "deaf").chmod(0o755)
    with Worker(f"x@{tmp_path}/deaf", timeout=0.5) as worker:
        assert "hung" in worker.ask({"id": "case", "data": "x" * 10_000_000})["crash"]


def test_patterns_of_known_failures() -> None:
    known = KnownFailures(["", "# nothing", "mask-*", "torch/axis-?  # why"])
    assert known.match("numpy", "mask-none")
    assert known.match("torch", "axis-1")
    assert not known.match("numpy", "axis-1")
    assert not known.match("torch", "axis-12")


def test_progress_is_shown_on_a_terminal_alone() -> None:
    command = [sys.executable, "-P", "-m", "classweight", "conformance", "--backend", "numpy", "--clause", "axis"]
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    assert piped.stderr == ""
    ours, theirs = os.openpty()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, check=True)
    os.close(theirs)
    assert b"cases: 3 of 14" in os.read(ours, 65536)
    os.close(ours)


def test_a_page_shows_what_failed_first_with_all_that_it_takes_to_see_it_again(conformance: Conformance) -> None:
    options = ("--spec", "spec.json", "--html", "report.html", "--markdown", "report.md")
    status, _, report = conformance("--backend", "toys:right", "--backend", "toys:wrong", *options)
    assert status == 1
    root = check(Path("report.html").read_text("utf-8"))
    text = "".join(root.itertext())
    failed = [case for case in report["backends"][1]["cases"] if case["status"] == "failed"]
    assert text.index("What failed") < text.index("Figures")
    assert f"{len(failed)} cases failed." in text
    told = ["".join(each[0].itertext()) for each in root.iter("details")]
    assert told == [f"failed: {case['id']}" for case in failed]
    # Of a loss of one's own, too, the backend that failed comes before the one that did not.
    assert [h.text for h in root.iter("h3")] == [f"toys:wrong: {len(failed)} cases", "toys:wrong", "toys:right"]
    parts = [h.text for h in next(root.iter("details")).iter("h4")]
    assert parts[:3] == ["Called with", "What came", "What was expected"]
    first = "".join(next(root.iter("details")).itertext())
    assert "gradient[" in first and "SoftmaxCrossEntropy(class_weight=(1.0, 2.0, 5.0)" in first
    pictures = [svg.get("aria-label") for svg in root.iter(SVG)]
    assert [name.partition(":")[0] for name in pictures] == [
        f"Worst distance of the {column}, cases of toys" for _ in range(2) for column in ("loss", "gradient")
    ]
    assert Path("report.md").read_text().startswith("# Parity\n")


def test_a_page_tells_the_story_of_a_flag_and_says_that_all_passed(conformance: Conformance) -> None:
    conformance("--backend", "toys:crashing", "--spec", "spec.json", "--html", "report.html")
    root = check(Path("report.html").read_text("utf-8"))
    assert any("last words" in "".join(item.itertext()) for item in root.iter("li"))
    stories = {each.text for each in root.iter("dd")}
    assert stories and stories <= set(flags().values())
    assert conformance("--backend", "toys:right", "--spec", "spec.json", "--html", "report.html")[0] == 0
    root = check(Path("report.html").read_text("utf-8"))
    assert "All passed." in "".join(root.itertext()) and not list(root.iter("details"))
