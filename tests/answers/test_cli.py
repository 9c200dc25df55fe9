"""``classweight compare`` and ``classweight identify`` as a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classweight.cli import main

from ..documents import SVG, check
from .surprises import ONE_HOT, S, T, W, Z

LOSSES = -np.log(np.exp(Z) / np.exp(Z).sum(-1, keepdims=True))[np.arange(4), T]


@pytest.fixture
def batch(tmp_path: Path) -> str:
    return saved(tmp_path, logits=Z, targets=T, class_weight=W)


def saved(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "batch.npz", **arrays)
    return str(folder / "batch.npz")


def test_compare_prints_a_table(batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", batch]) == 0
    text = capsys.readouterr().out
    assert re.search(rf"{(np.array(W)[T] * LOSSES).mean():.6f}", text)
    assert "torch.cross_entropy(weight=w)" in text
    assert max(map(len, text.splitlines())) <= 130


def test_compare_in_other_forms(batch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", batch, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_classes"] == 3
    assert main(["compare", batch, "--markdown", "--plot", str(tmp_path / "batch.png")]) == 0
    assert "|---|" in capsys.readouterr().out
    assert (tmp_path / "batch.png").read_bytes().startswith(b"\x89PNG")


def test_compare_as_a_page(batch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", batch, "--html", str(tmp_path / "batch.html")]) == 0
    root = check((tmp_path / "batch.html").read_text("utf-8"))
    loss = f"{(np.array(W)[T] * LOSSES).mean():.6f}"
    assert any(text.startswith(loss) for text in root.itertext())
    pictures = [svg.get("aria-label") for svg in root.iter(SVG)]
    assert len(pictures) == 2 and loss in pictures[0]
    assert "torch.cross_entropy(weight=w)" in [code.text for code in root.iter("code")]
    (rows,) = (len(body) for body in root.iter("tbody"))
    assert rows == len({h.text for h in root.iter("h3")} - {"No number"})
    assert capsys.readouterr().out
    assert main(["compare", batch, "--html", "/no/such/folder/batch.html"]) == 2
    assert "--html must name a file in a folder that exists" in capsys.readouterr().err


def test_identify_names_the_call(batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identify", batch, "--loss", f"{(np.array(W)[T] * LOSSES).mean():.4f}"]) == 0
    text = capsys.readouterr().out
    assert "Exactly, by a native call as it is:" in text
    assert "keras.sparse_categorical_crossentropy(from_logits=True, class_weight=w)" in text
    assert max(map(len, text.splitlines())) <= 130


def test_identify_says_that_nothing_matches(batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identify", batch, "--loss", "0.123456", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["matches"] == []


def test_a_file_may_hold_all_that_an_option_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    p = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)
    path = saved(tmp_path, probs=p, targets=ONE_HOT, sample_weight=S, label_smoothing=0.1, axis=1, kind="softmax")
    assert main(["compare", path]) == 0
    assert "4 positions of 3 classes, distributions, sample_weight, label_smoothing=0.1" in capsys.readouterr().out
    assert main(["compare", path, "--label-smoothing", "0.2", "--kind", "sigmoid"]) == 0
    assert "4 x 3 binary elements, sample_weight, label_smoothing=0.2" in capsys.readouterr().out


def piped(command: list[str], given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-P", "-m", "classweight", *command], input=given, capture_output=True)


@pytest.mark.parametrize("command", [["compare"], ["identify", "--loss", "1.0"]], ids=["compare", "identify"])
def test_the_batch_may_come_from_standard_input(batch: str, command: list[str]) -> None:
    name, *options = command
    there, piped_in = (piped([name, x, *options], Path(batch).read_bytes()) for x in (batch, "-"))
    assert piped_in.stdout == there.stdout != b""
    assert piped_in.returncode == there.returncode
    assert piped_in.stderr == b""
    nothing = piped([name, "-", *options])
    assert nothing.returncode == 2
    assert re.fullmatch(rb"classweight \w+: `batch` must be an .npz file.* in '-'\n", nothing.stderr)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["compare"], 0),
        (["compare", "--json"], 0),
        (["identify", "--loss", "0.12345"], 1),
        (["--help"], 0),
        (["compare", "--help"], 0),
    ],
    ids=str,
)
def test_a_reader_may_leave_early_and_the_status_stays(batch: str, command: list[str], status: int) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    arguments = [batch] if "--help" not in command else []
    try:
        run = subprocess.run(
            [sys.executable, "-P", "-m", "classweight", *command[:1], *arguments, *command[1:]],
            stdout=theirs,
            stderr=subprocess.PIPE,
        )
    finally:
        os.close(theirs)
    assert (run.returncode, run.stderr) == (status, b"")


UNUSABLE = {
    "no-file": (None, "that can be read"),
    "text": (b"logits", "be an .npz file"),
    "cut-short": (b"PK\x03\x04", "be an .npz file"),
    "misspelt": ({"logits": Z, "target": T}, "got 'logits', 'target'"),
    "two-inputs": ({"logits": Z, "probs": Z, "targets": T}, "one of 'logits', 'log_probs', 'probs'"),
    "objects": ({"logits": np.array([None]), "targets": T}, "hold arrays of numbers"),
    "words": ({"logits": Z, "targets": np.array(["a"] * 4)}, "`targets` must be real numbers"),
    "integers": ({"logits": Z.astype(int), "targets": T}, "`logits` must be floating point"),
    "shape": ({"logits": Z, "targets": T[:3]}, "`targets` must have the shape of the logits"),
    "weights": ({"logits": Z, "targets": T, "class_weight": W[:2]}, "`class_weight` must have shape (3,)"),
    "scalar": ({"logits": Z, "targets": T, "ignore_index": [1, 2]}, "`ignore_index` must be one value"),
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("command", [["compare"], ["identify", "--loss", "1.0"]], ids=["compare", "identify"])
def test_a_bad_file_is_refused_in_words(
    name: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = UNUSABLE[name]
    path = tmp_path / "batch.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    assert main([command[0], str(path), *command[1:]]) == 2
    output = capsys.readouterr()
    assert output.out == "" and message in output.err
    assert output.err.startswith(f"classweight {command[0]}: ")


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"classweight {version('classweight')}\n"
    assert piped(["--version"]).stdout.decode() == f"classweight {version('classweight')}\n"


def test_a_picture_in_no_folder_is_refused(batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", batch, "--plot", "/no/such/folder/batch.png"]) == 2
    assert "--plot must name a file in a folder that exists" in capsys.readouterr().err
