"""One batch through every convention: the numbers of the closed form, the words, the table, the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classweight import compare
from classweight.answers.compare import Comparison, Row
from classweight.reference import reference
from classweight.spec import SoftmaxCrossEntropy

from .surprises import IGNORED, MAPS_T, MAPS_Z, ONE_HOT, S, T, W, Y, Z

P = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)
L = -np.log(P)
ROWS = L[np.arange(4), T]
LABEL_WEIGHTS = np.array(W)[T]


def row(comparison: Comparison, call: str) -> Row:
    (found,) = (each for each in comparison.rows if each.call == call)
    return found


@pytest.mark.parametrize(
    ("call", "denominator", "formula"),
    [
        ("torch.cross_entropy(weight=w)", 10, "sum_i w[y] L[y] / sum_i w[y]"),
        ("torch.cross_entropy(soft_targets=True, weight=w)", 4, "sum_i w[y] L[y] / (all rows)"),
        ("torch.cross_entropy(reduction='sum', weight=w)", 1, "sum_i w[y] L[y]"),
        ("keras.sparse_categorical_crossentropy(class_weight=w)", 4, "sum_i w[y] L[y] / (rows that count)"),
        ("chainer.softmax_cross_entropy(class_weight=w)", 4, "sum_i w[y] L[y] / (rows that count)"),
        ("sklearn.log_loss(class_weight=w)", 10, "sum_i w[y] L[y] / sum_i w[y]"),
    ],
)
def test_a_row_is_the_closed_form(call: str, denominator: float, formula: str) -> None:
    found = row(compare(Z, T, class_weight=W), call)
    assert found.loss == pytest.approx((LABEL_WEIGHTS * ROWS).sum() / denominator, rel=1e-12)
    assert (found.denominator, found.formula) == (denominator, formula)
    # d loss / d logits is w (q - [c = y]) / denominator, whatever the call is handed.
    gradient = LABEL_WEIGHTS[:, None] * (P - ONE_HOT) / denominator
    assert found.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-9)
    amounts = np.bincount(T, np.abs(gradient).sum(1))
    assert found.shares == pytest.approx(tuple(amounts / amounts.sum()), rel=1e-9)


def test_calls_of_one_number_are_one_group() -> None:
    losses = [group[0].loss for group in compare(Z, T, class_weight=W).groups()]
    assert losses == sorted(losses)
    torch, dropped, keras, total = compare(Z, T, class_weight=W).groups()
    assert {"torch.cross_entropy(weight=w)", "onnx.softmax_cross_entropy_loss(weights=w)"} <= {r.call for r in torch}
    assert [r.call for r in dropped] == ["chainer.softmax_cross_entropy(soft_targets=True)"]
    assert "silently not used" in dropped[0].note
    assert "chainer.softmax_cross_entropy(class_weight=w)" in {r.call for r in keras}
    assert total[0].denominator == 1


def test_soft_targets_part_the_conventions() -> None:
    found = compare(Z, Y, class_weight=W)
    inside = (Y * W * L).sum(-1).mean()
    outside = ((Y * W).sum(-1) * (Y * L).sum(-1)).mean()
    by_label = (np.array(W)[Y.argmax(-1)] * (Y * L).sum(-1)).mean()
    calls = {
        "torch.cross_entropy(soft_targets=True, weight=w)": inside,
        "tensorflow.weight_map(class_weight=w)": outside,
    }
    calls["keras.categorical_crossentropy(from_logits=True, class_weight=w)"] = by_label
    for call, loss in calls.items():
        assert row(found, call).loss == pytest.approx(loss, rel=1e-12)


def test_what_a_call_does_not_take_is_said() -> None:
    found = compare(Z, T, sample_weight=S, label_smoothing=0.1)
    assert row(found, "torch.cross_entropy(label_smoothing=0.1)").reason == "takes no sample weights"
    assert row(found, "sklearn.log_loss()").reason == "takes no label smoothing"
    masked = compare(Z, T, mask=[True, True, False, True])
    assert "no label to ignore" in row(masked, "torch.cross_entropy(soft_targets=True)").reason
    missing = compare(Z, T, class_weight={0: 1.0})
    assert "no weight for class 1" in row(missing, "torch.cross_entropy(weight=w)").reason
    keras = row(missing, "keras.sparse_categorical_crossentropy(from_logits=True, class_weight=w)")
    assert keras.loss == pytest.approx(ROWS.mean(), rel=1e-12)
    assert "indices from 0 to 2; got -2" in row(compare(Z, [0, 1, 2, -2]), "torch.cross_entropy()").reason


def test_weights_of_either_sign_are_weights() -> None:
    s = np.array([1, -0.5, 2, -0.25])
    found = compare(Z, T, sample_weight=s)
    total = (s * ROWS).sum()
    assert row(found, "keras.sparse_categorical_crossentropy()").loss == pytest.approx(total / 4, rel=1e-12)
    assert row(found, "sklearn.log_loss()").loss == pytest.approx(total / 2.25, rel=1e-12)
    cancelled = row(compare(Z, T, sample_weight=[1, -1, 1, -1]), "sklearn.log_loss()")
    assert np.isnan(cancelled.loss) and cancelled.denominator == 0


def test_each_framework_ignores_its_own_label() -> None:
    found = compare(Z, IGNORED)
    kept = (L[np.arange(4), IGNORED] * (IGNORED >= 0)).sum()
    assert row(found, "chainer.softmax_cross_entropy()").loss == pytest.approx(kept / 3, rel=1e-12)
    assert "got -1" in row(found, "torch.cross_entropy()").reason
    told = compare(Z, IGNORED, ignore_index=-1)
    v1 = row(told, "tensorflow.v1_softmax_cross_entropy(reduction='weighted_sum_over_batch_size')")
    assert v1.loss == pytest.approx(kept / 4, rel=1e-12)
    assert v1.note == "ignored rows masked"


@pytest.mark.parametrize("axis", [1, -1])
def test_the_class_axis_is_inferred(axis: int) -> None:
    logits = np.moveaxis(np.repeat(MAPS_Z, 2, axis=3), 1, axis)
    targets = np.repeat(MAPS_T, 2, axis=2)
    found = row(
        compare(logits, targets, class_weight=W), "chainer.softmax_cross_entropy(normalize=False, class_weight=w)"
    )
    spec = SoftmaxCrossEntropy(class_weight=W, ignore_index=-1, reduction="sum", axis=axis)
    assert found.loss == pytest.approx(float(reference(spec, logits, targets)[0]) / 2, rel=1e-12)


def test_probabilities_and_logits_are_one_batch() -> None:
    for inputs, scores in (("probs", P), ("log_probs", np.log(P))):
        found = compare(scores, T, class_weight=W, inputs=inputs)
        for mine, theirs in zip(found.rows, compare(Z, T, class_weight=W).rows, strict=True):
            assert (mine.loss, mine.gradient_norm) == pytest.approx((theirs.loss, theirs.gradient_norm), rel=1e-9)


def test_a_clipped_probability_has_no_gradient() -> None:
    found = compare([[1e4, 0, -1e4]], [2])
    assert row(found, "torch.cross_entropy()").loss == 20000
    clipped = row(found, "keras.categorical_crossentropy()")
    assert (clipped.loss, clipped.gradient_norm) == (pytest.approx(-np.log(1e-7)), 0)


def test_binary_labels() -> None:
    targets = np.array([[1.0, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 0]])
    found = compare(Z, targets, class_weight=(1, 3))
    losses = np.where(targets > 0, 3 * np.log1p(np.exp(-Z)), np.log1p(np.exp(Z)))
    torch = row(found, "torch.binary_cross_entropy_with_logits(pos_weight=w+)")
    assert torch.loss == pytest.approx(losses.mean(), rel=1e-12)
    assert torch.formula == "sum_i (w+ t L+ + w- (1 - t) L-) / (all elements)"
    assert row(found, "chainer.sigmoid_cross_entropy()").reason == "takes no class weights"
    assert "is not 1" in next(r for r in compare(Z, targets, class_weight=(2, 3)).rows if r.framework == "torch").reason
    with pytest.raises(ValueError, match="a pair"):
        compare(Z, targets, class_weight=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_weight": [1, 2]}, r"`class_weight` must have shape \(3,\)"),
        ({"class_weight": [1, 2, np.inf]}, "`class_weight` must be a finite number"),
        ({"sample_weight": [1, 2]}, "`sample_weight` must be a scalar or have a shape"),
        ({"label_smoothing": 2}, "`label_smoothing` must be a number from 0 to 1"),
        ({"mask": [1, 1, 0, 1]}, "`mask` must be bool"),
        ({"axis": 3}, "`axis` must be an axis of the logits"),
        ({"inputs": "odds"}, "`inputs` must be one of"),
        ({"kind": "hinge"}, "`kind` must be"),
    ],
)
def test_what_fits_no_convention_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        compare(Z, T, **arguments)


def test_an_open_class_axis_is_asked_for() -> None:
    logits, targets = np.zeros((2, 3, 3)), np.zeros((2, 3), int)
    with pytest.raises(ValueError, match="`axis` must be given"):
        compare(logits, targets)
    assert row(compare(logits, targets, axis=2), "torch.cross_entropy()").loss == pytest.approx(np.log(3))


def test_json_holds_every_row_and_no_nan() -> None:
    found = compare(Z, np.full(4, -1), ignore_index=-1).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["rows"][0]["loss"] == "nan"


def test_text_and_markdown_name_every_call() -> None:
    found = compare(Z, T, class_weight=W, label_smoothing=0.1)
    for text in (str(found), found.to_markdown()):
        for each in found.rows:
            assert each.call.partition("(")[0] in text
            assert each.reason in text
    cells = [line.count("|") for line in found.to_markdown().splitlines() if line.startswith("|")]
    assert len(set(cells)) == 1


def test_of_many_classes_those_that_differ_are_shown() -> None:
    logits, targets = np.random.default_rng(3).normal(size=(200, 20)), np.arange(200) % 20
    weights = np.where(np.arange(20) < 4, 9.0, 1.0)
    found = compare(logits, targets, class_weight=weights)
    assert len(found.shown_classes) == 8
    assert {0, 1, 2, 3} <= set(found.shown_classes)
    assert "12 more classes are in the JSON" in str(found)


@pytest.mark.parametrize("classes", [3, 20])
def test_the_picture(classes: int, tmp_path: Path) -> None:
    logits = np.random.default_rng(3).normal(size=(60, classes))
    found = compare(logits, np.arange(60) % classes, class_weight=np.arange(1.0, classes + 1))
    found.plot(tmp_path / "batch.svg")
    picture = (tmp_path / "batch.svg").read_text()
    for text in ("loss, nats", "torch.cross_entropy", "class 1"):
        assert f"<!-- {text}" in picture
    assert ("other classes" in picture) == (classes > 8)


def test_a_picture_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"classweight\[plot\]"):
        compare(Z, T).plot(tmp_path / "batch.png")
