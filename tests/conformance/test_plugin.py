"""The pytest plugin: a test for each case, strict xfails, texts that stand alone, and nothing without the option."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest

from classweight import SoftmaxCrossEntropy, conventions

pytest_plugins = "pytester"

# On a tree that is not installed there is no entry point.
INSTALLED = any(point.name == "classweight" for point in entry_points(group="pytest11"))
LOADED = () if INSTALLED else ("-p", "classweight.conformance.plugin")
SPEC = SoftmaxCrossEntropy(class_weight=[1, 2, 5], ignore_index=-1, precision="exact")
LOSSES = """
import os
import classweight.adapters.numpy as cwn
from classweight import SoftmaxCrossEntropy

spec = SoftmaxCrossEntropy(class_weight=[1, 2, 5], ignore_index=-1, precision="exact")

def right(logits, targets, sample_weight=None):
    return cwn.loss_and_grad(spec, logits, targets, sample_weight)

def negative(logits, targets):
    loss, gradient = right(logits, targets)
    return loss, -gradient

def unweighted(logits, targets):
    return cwn.loss_and_grad(SoftmaxCrossEntropy(ignore_index=-1, precision="exact"), logits, targets)

def crashing(logits, targets):
    if len(logits) == 1:
        os._exit(3)
    return right(logits, targets)
"""
TORCH = """
from torch.nn.functional import cross_entropy
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    pytester.makepyfile(losses=LOSSES, torch_losses=TORCH)
    pytester.makefile(".json", spec=json.dumps(SPEC.to_dict()))
    pytester.makeini("[pytest]\nfilterwarnings = error")

    def run(*options: str, spec: str = "spec.json") -> pytest.RunResult:
        chosen = ("--classweight-spec", spec) if spec else ()
        return pytester.runpytest_subprocess(*LOADED, *chosen, *options)

    return run


def test_the_wheel_brings_the_plugin() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"classweight": "classweight.conformance.plugin"}


def test_a_right_loss_passes_with_one_test_for_each_case(run: Run, pytester: pytest.Pytester) -> None:
    options = ("-p", "no:cacheprovider", "--junitxml", "report.xml", "-v")
    result = run("--classweight-backend", "losses:right", *options)
    outcomes = result.parseoutcomes()
    assert result.ret == 0
    assert set(outcomes) == {"passed"}
    result.stdout.fnmatch_lines(["classweight::losses:right?own-confident-sample-weight-float32? PASSED*"])
    cases = ElementTree.parse(pytester.path / "report.xml").getroot().iter("testcase")
    names = [(case.get("classname"), case.get("name")) for case in cases]
    assert len(set(names)) == len(names) == outcomes["passed"]
    assert ("classweight", "losses:right[own-all-ignored-float64]") in names


def test_each_of_several_wrong_losses_fails(run: Run) -> None:
    backends = ("negative", "unweighted", "crashing")
    result = run(*(f"--classweight-backend=losses:{name}" for name in backends), "-k", "float32", "-rA")
    failed = {
        name: set(re.findall(rf"^FAILED .*losses:{name}\[(.*?)-float32\]", result.stdout.str(), re.M))
        for name in backends
    }
    assert {"own-normal", "own-wide", "own-confident", "own-one-row"} <= failed["negative"]
    assert {"own-normal", "own-wide", "own-confident"} <= failed["unweighted"]
    assert failed["crashing"] == {"own-one-row"}
    result.stdout.fnmatch_lines(["loss: the worker ended with status 3"])
    assert "PASSED classweight::losses:unweighted[own-all-ignored-float32]" in result.stdout.str()


def test_pytorchs_own_loss_fails_where_it_is_known_to_with_a_text_that_stands_alone(
    run: Run, pytester: pytest.Pytester
) -> None:
    (pytester.path / "spec.json").write_text(json.dumps(conventions.torch.cross_entropy().to_dict()))
    (pytester.path / "known.txt").write_text("own-wide-*  # confident rows\n*:cross_entropy/own-ignored-nan-*\n")
    result = run("--classweight-backend", "torch_losses:cross_entropy", "--classweight-xfails", "known.txt")
    outcomes = result.parseoutcomes()
    assert (outcomes["failed"], outcomes["xfailed"]) == (2, 4)
    result.stdout.fnmatch_lines(
        [
            "* torch_losses:cross_entropy?own-confident-float32? *",
            r"gradient?*? is *0.0, but should be *e-* (*e+* ULP away; * allowed)",
            "called with",
            "  spec          SoftmaxCrossEntropy(ignore_index=-100, zero_denominator='nan')",
            "  logits        float32 (6, 5)",
            "  targets       int64 (6,)",
            "  upstream      float32 ()",
            "what came",
            "  gradient      float32 (6, 5)",
            "what was expected",
            "  loss          float32 (), within * ULP",
            "  gradient      float32 (6, 5), within * ULP",
            "what this case is there for",
            "  ConfidentTarget: The target's logit leads by 8 to 250. *",
            "FAILED classweight::torch_losses:cross_entropy?own-confident-float32? - *",
            "FAILED classweight::torch_losses:cross_entropy?own-confident-float64? - *",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_a_known_failure_that_passes_is_a_failure(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "known.txt").write_text("own-normal-float32\n")
    options = ("--classweight-backend", "losses:right", "--classweight-xfails", "known.txt", "-k", "own-normal-float")
    result = run(*options)
    assert {name: result.parseoutcomes()[name] for name in ("passed", "failed")} == {"passed": 1, "failed": 1}
    result.stdout.fnmatch_lines(["*XPASS(strict)*known failure*"])
    again = run(*options, "--last-failed")
    assert "passed" not in again.parseoutcomes()


def test_an_adapter_is_judged_by_the_vectors_and_its_interpreter_is_not_in_the_ids(run: Run) -> None:
    result = run("--classweight-backend", f"numpy@{sys.executable}", "--classweight-clause", "ma[r-t]k", "-v", spec="")
    assert result.ret == 0
    lines = re.findall(r"^classweight::numpy\[(.*?)\] PASSED", result.stdout.str(), re.M)
    assert lines
    assert all(line.startswith("mask-") for line in lines)


def test_its_tests_stand_beside_the_users_and_modules_are_found_where_pytest_finds_them(
    run: Run, pytester: pytest.Pytester
) -> None:
    (pytester.mkdir("src") / "elsewhere.py").write_text("from losses import right\n")
    pytester.makeini("[pytest]\nfilterwarnings = error\npythonpath = src .")
    pytester.makepyfile(test_mine="def test_mine(): pass")
    pytester.makeconftest(
        "import sys\nheavy = {'torch', 'mpmath', 'numpy', 'classweight.spec'}\n"
        "def pytest_unconfigure(): print('heavy:', heavy & set(sys.modules) or 'none')"
    )
    options = ("--classweight-backend", "elsewhere:right", "--classweight-framework", "numpy")
    result = run(*options, "-k", "mine or (classweight and own-normal-float64)")
    result.assert_outcomes(passed=2, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines(["test_mine.py .*", "classweight .*", "heavy: {*'numpy'*}"])
    quiet = pytester.runpytest_subprocess(*LOADED)
    quiet.assert_outcomes(passed=1)
    quiet.stdout.fnmatch_lines(["heavy: none"])


@pytest.mark.parametrize(
    ("options", "spec", "status", "says"),
    [
        (("losses:right",), "", 4, "ERROR: --classweight-spec must be given for 'losses:right', which is none of *"),
        (("losses:right",), "nowhere.json", 4, "ERROR: --classweight-spec: *nowhere.json*"),
        (("losses:right",), "/dev/zero", 4, "ERROR: --classweight-spec: /dev/zero is larger than *"),
        (("losses:right",), "losses.py", 4, "ERROR: --classweight-spec losses.py: *"),
        (("losses:right", "--classweight-xfails", "nowhere"), "spec.json", 4, "ERROR: --classweight-xfails: *nowhere*"),
        (("losses:missing",), "spec.json", 2, "--classweight-backend losses:missing: AttributeError: *"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_sentence(
    run: Run, options: tuple[str, ...], spec: str, status: int, says: str
) -> None:
    result = run("--classweight-backend", *options, spec=spec)
    assert result.ret == status
    text = result.stdout.str() + result.stderr.str()
    pytest.LineMatcher(text.splitlines()).fnmatch_lines([says])
    assert "Traceback" not in text
