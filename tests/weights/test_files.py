"""``classweight weights``: labels in files of every kind, the table, and lines that are right when they are pasted."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

from classweight import ClassCounts, class_weights
from classweight.cli import main
from classweight.weights.files import count_file

NAMES = ["cat", "dog", "cat", "owl", "cat", "dog"]
INDICES = [0, 1, 0, 2, 0, 1]


def write(path: Path, labels: list[Any]) -> Path:
    match path.suffix:
        case ".csv":
            path.write_text("id,label\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels)), "utf-8-sig")
        case ".tsv":
            path.write_text("id\tlabel\n" + "".join(f"{i}\t{label}\n" for i, label in enumerate(labels)))
        case ".parquet":
            parquet.write_table(pyarrow.table({"id": range(len(labels)), "label": labels}), path)
        case ".npy":
            np.save(path, labels)
        case ".npz":
            np.savez(path, id=range(len(labels)), label=labels)
        case _:
            for i, label in enumerate(labels):
                (path / str(label) / "deep").mkdir(parents=True, exist_ok=True)
                (path / str(label) / ("deep" if i % 2 else "") / f"{i}.png").touch()
            (path / str(labels[0]) / ".DS_Store").touch()
    return path


@pytest.mark.parametrize("labels", [NAMES, INDICES], ids=["names", "indices"])
@pytest.mark.parametrize("kind", ["a.csv", "a.tsv", "a.parquet", "a.npy", "a.npz", "a"])
def test_labels_of_every_kind_of_file_are_counted(kind: str, labels: list[Any], tmp_path: Path) -> None:
    counts = count_file(write(tmp_path / kind, labels), None if kind in ("a", "a.npy") else "label")
    named = isinstance(labels[0], str) or kind == "a"
    assert counts.as_dict(names=named) == {str(k) if named else k: n for k, n in Counter(labels).items()}
    if not named:
        counts = count_file(tmp_path / kind, None if kind == "a.npy" else "label", names=True)
        assert counts.as_dict(names=True) == {"0": 3, "1": 2, "2": 1}


def test_folders_have_the_order_of_image_folders(tmp_path: Path) -> None:
    counts = count_file(write(tmp_path / "images", ["b", "C", "a", "b"]))
    assert counts == ClassCounts(class_names=["C", "a", "b"]).update(["b", "C", "a", "b"])


def test_the_table_and_the_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "labels.csv", NAMES))
    assert main(["weights", path, "--column", "label", "--scheme", "balanced"]) == 0
    output = capsys.readouterr().out
    weights = class_weights(NAMES)
    assert output.startswith(f"{weights}\n\n")
    lines = dict(re.findall(r"^([\w-]+) {2,}(.+)$", output.partition("\n\n")[2], re.MULTILINE))
    assert list(lines) == ["PyTorch", "Keras", "TensorFlow", "JAX", "Chainer", "scikit-learn", "classweight"]
    expected = compute_class_weight("balanced", classes=np.unique(NAMES), y=NAMES)
    loss = eval(lines["PyTorch"], {"torch": torch})
    np.testing.assert_allclose(loss.weight, expected, rtol=1e-5)
    model = eval(lines["scikit-learn"], {"LogisticRegression": LogisticRegression})
    assert model.class_weight == pytest.approx(dict(zip(np.unique(NAMES), expected, strict=True)), rel=1e-5)
    keras = eval(re.search(r"class_weight=(.+)\)$", lines["Keras"])[1])  # type: ignore[index]
    np.testing.assert_allclose([keras[0], keras[1], keras[2]], expected, rtol=1e-5)


def test_json_and_the_parameters_of_schemes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "labels.npy", [0, 0, 2]))
    options = ["--scheme", "effective_number", "--beta", "0.9", "--zero-count", "2.5", "--normalize", "max", "--json"]
    assert main(["weights", path, *options]) == 0
    weights = class_weights([0, 0, 2], "effective_number", beta=0.9, zero_count=2.5, normalize="max")
    found = json.loads(capsys.readouterr().out)
    assert found["weights"] == list(weights)
    assert (found["counts"], found["beta"], found["normalize"]) == ([2, 0, 1], 0.9, "max")


BAD: dict[str, tuple[str, str, list[str], str]] = {
    "no-file": ("none.csv", "", [], "none.csv"),
    "kind": ("labels.txt", "a\n", [], "`labels` must be .csv, .tsv"),
    "column": ("labels.csv", "id,label\n1,a\n", [], "`column` must be one of 'id', 'label'; got none"),
    "misspelt": ("labels.csv", "label\na\n", ["--column", "lable"], "must be one of 'label'; got 'lable'"),
    "nothing": ("labels.csv", "", [], "`column` must be one of no columns"),
    "missing": ("labels.csv", "id,label\n1,a\n2,\n", ["--column", "label"], "be there in every row; got none in row 3"),
    "short-row": ("labels.csv", "id,label\n1\n", ["--column", "label"], "got none in row 2"),
    "negative": ("labels.csv", "label\n-1\n0\n", [], "class indices from 0"),
    "gap": ("labels.csv", "label\n1\n1\n", [], "none of class 0"),
    "pickle": ("labels.npy", "no array", [], "pickle"),
    "no-archive": ("labels.npz", "no archive", [], "must be an .npz file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_counted_is_refused_in_words(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, content, options, message = BAD[name]
    if name != "no-file":
        (tmp_path / file).write_text(content)
    assert main(["weights", str(tmp_path / file), *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("classweight weights: ") and message in output.err


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.array([None, "a"]), allow_pickle=True)
    np.savez(tmp_path / "a.npz", label=np.array([None, "a"]))
    for name in ("a.npy", "a.npz"):
        assert main(["weights", str(tmp_path / name)]) == 2
        assert "object" in capsys.readouterr().err.lower()


def test_without_pyarrow_a_table_of_parquet_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.parquet", NAMES)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert main(["weights", str(path), "--column", "label"]) == 2
    assert "pip install pyarrow" in capsys.readouterr().err
