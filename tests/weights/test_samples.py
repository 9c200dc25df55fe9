"""Sample weights: class weight times sample weight, over positions and outputs; the weights of a sampler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, recall_score
from sklearn.utils.class_weight import compute_sample_weight

import classweight.adapters.numpy as cwn
from classweight import (
    SoftmaxCrossEntropy,
    TargetIndexError,
    class_weights,
    correct_for_sampling,
    sample_weights,
    sampler_weights,
)

WEIGHTS = [0.5, 2, 5]
some_labels = st.lists(st.integers(0, 4), min_size=1, max_size=40)


@given(labels=some_labels, weights=st.lists(st.floats(0, 100), min_size=5, max_size=5))
def test_labels_weigh_as_in_scikit_learn(labels: list[int], weights: list[float]) -> None:
    expected = compute_sample_weight(dict(enumerate(weights)), labels)
    np.testing.assert_array_equal(sample_weights(labels, weights), expected)
    np.testing.assert_array_equal(sample_weights(labels, dict(enumerate(weights))), expected)
    np.testing.assert_array_equal(sample_weights(labels, "balanced"), compute_sample_weight("balanced", labels))
    partial = {2: 7.0, labels[0]: 0.25}
    expected = [partial.get(label, 1.0) for label in labels]
    np.testing.assert_array_equal(sample_weights(labels, partial, missing_class_weight=1.0), expected)


def test_a_mapping_may_be_empty() -> None:
    for labels in ([0, 3], ["a", "b"]):
        assert sample_weights(labels, {}, missing_class_weight=1.5).tolist() == [1.5, 1.5]


def test_names_weigh_as_in_scikit_learn() -> None:
    names = np.array(["ox", "ant", "ant", "cat"])
    for weights in ("balanced", {"ant": 0.5, "cat": 2.0, "ox": 3.0}):
        np.testing.assert_array_equal(sample_weights(names, weights), compute_sample_weight(weights, names))
    np.testing.assert_array_equal(sample_weights(names, class_weights(names)), compute_sample_weight("balanced", names))
    # The order of the names here is not that of the weights there.
    weights = class_weights(counts={"ant": 4, "bee": 2, "cat": 1, "ox": 8}, scheme="inverse")
    np.testing.assert_array_equal(sample_weights(names, weights), [1 / 8, 1 / 4, 1 / 4, 1])


@given(labels=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=20))
def test_outputs_multiply_as_in_scikit_learn(labels: list[tuple[int, int]]) -> None:
    y = np.array(labels)
    weights = [dict(enumerate(WEIGHTS)), {0: 1.0, 1: 3.0, 2: 0.25, 3: 8.0}]
    expected = compute_sample_weight(weights, y)
    np.testing.assert_array_equal(sample_weights(list(y.T), weights, combine="product"), expected)
    balanced = sample_weights(list(y.T), "balanced", combine="product")
    np.testing.assert_array_equal(balanced, compute_sample_weight("balanced", y))


Y = {"kind": np.array([0, 1, 2]), "size": np.array([1, 0, 1])}
EACH = {"kind": np.array(WEIGHTS), "size": {0: 1, 1: 3}}


def test_outputs_weigh_each_or_together() -> None:
    each = sample_weights(Y, EACH, [1, 10, 100])
    assert {key: weight.tolist() for key, weight in each.items()} == {"kind": [0.5, 20, 500], "size": [3, 10, 300]}
    assert sample_weights(Y, EACH, [1, 10, 100], combine="product").tolist() == [1.5, 20, 1500]
    assert sample_weights(Y, EACH, [1, 10, 100], combine="sum").tolist() == [3.5, 30, 800]
    own = {"kind": np.ones(3), "size": np.array([2.0, 2, 2])}
    assert sample_weights(Y, EACH, own, combine="sum").tolist() == [0.5 + 6, 2 + 2, 5 + 6]
    masks = {"kind": np.array([True, True, False]), "size": np.array([True, False, True])}
    assert sample_weights(Y, EACH, mask=masks, combine="sum").tolist() == [3.5, 2, 3]
    assert sample_weights(Y, EACH, mask=[True, True, False], combine="sum").tolist() == [3.5, 3, 0]
    lists = sample_weights(list(Y.values()), list(EACH.values()), [[1, 10, 100], [1, 1, 0]])
    assert [weight.tolist() for weight in lists] == [[0.5, 20, 500], [3, 1, 0]]
    assert [weight.tolist() for weight in sample_weights(list(Y.values()), None)] == [[1, 1, 1]] * 2


def test_outputs_take_class_weights_as_they_come() -> None:
    expected = {key: compute_sample_weight("balanced", y) for key, y in Y.items()}
    for weights in ("balanced", class_weights(Y)):
        each = sample_weights(Y, weights)
        for key in Y:
            np.testing.assert_array_equal(each[key], expected[key])


def test_padding_weighs_nothing() -> None:
    steps = np.array([[0, 2, 1], [2, -1, -1]])
    expected = [[0.5, 5, 2], [10, 0, 0]]
    assert sample_weights(steps, WEIGHTS, [1, 2], ignore_index=-1).tolist() == expected
    mask = steps >= 0
    assert sample_weights(steps, WEIGHTS, [[1], [2]] * np.ones(3), mask=mask).tolist() == expected
    assert sample_weights(steps, dict(enumerate(WEIGHTS)), [1, 2], mask=mask).tolist() == expected
    one_hot = np.eye(3)[steps] * mask[..., None]
    assert sample_weights(one_hot, WEIGHTS, [1, 2], mask=mask).tolist() == expected
    assert sample_weights(one_hot.swapaxes(1, 2), WEIGHTS, [1, 2], mask=mask, axis=1).tolist() == expected
    names = np.array(["a", "b", "c", ""])[steps]
    assert sample_weights(names, dict(zip("abc", WEIGHTS, strict=True)), [1, 2], mask=mask).tolist() == expected


def test_distributions_weigh_as_their_largest_entry_or_as_expected() -> None:
    soft = np.array([[0.5, 0.5, 0], [0.25, 0.25, 0.5]])
    assert sample_weights(soft, WEIGHTS).tolist() == [0.5, 5]
    assert sample_weights(soft, WEIGHTS, weighting="expected").tolist() == [1.25, 3.125]
    assert sample_weights(soft, {2: 5}, weighting="expected", missing_class_weight=0).tolist() == [0, 2.5]


@pytest.mark.parametrize("weighting", ["label", "expected"])
@pytest.mark.parametrize("soft", [False, True])
@given(seed=st.integers(0, 10**6))
def test_the_loss_weighted_by_sample_is_the_loss_weighted_by_class(weighting: Any, soft: bool, seed: int) -> None:
    """And the weights add up to the denominator of the mean over weights."""
    rng = np.random.default_rng(seed)
    logits, s = rng.normal(size=(4, 3, 5)), rng.uniform(size=4)
    targets = rng.dirichlet(np.ones(3), (4, 5)).swapaxes(1, 2) if soft else rng.integers(0, 3, (4, 5))
    mask = rng.uniform(size=(4, 5)) < 0.7
    weights = sample_weights(targets, WEIGHTS, s, mask=mask, weighting=weighting, axis=1)
    weighted = SoftmaxCrossEntropy(class_weight=WEIGHTS, weighting=weighting)
    total, denominator = cwn.loss_parts(weighted, logits, targets, s, mask=mask)
    plain = cwn.loss_parts(SoftmaxCrossEntropy(), logits, targets, weights, mask=mask)
    assert plain[0] == pytest.approx(total, rel=1e-13)
    assert weights.sum() == pytest.approx(denominator, rel=1e-13)


def test_scikit_learns_estimators_and_metrics_take_them() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [90, 10])
    x = rng.normal(size=(100, 2)) + y[:, None]
    s = rng.uniform(0.5, 1.5, 100)
    weights = class_weights(y)
    by_class = LogisticRegression(class_weight=weights.as_dict()).fit(x, y, s)
    by_sample = LogisticRegression().fit(x, y, sample_weights(y, weights, s))
    np.testing.assert_allclose(by_sample.coef_, by_class.coef_, rtol=1e-6)
    p = by_class.predict_proba(x)
    spec = SoftmaxCrossEntropy(class_weight=weights, inputs="probs")
    expected = log_loss(y, p, sample_weight=sample_weights(y, weights))
    assert cwn.loss(spec, p, y) == pytest.approx(expected, rel=1e-14)
    # Weighted so, accuracy is the mean recall of the classes.
    accuracy = ((p.argmax(1) == y) * sample_weights(y, weights)).sum() / len(y)
    assert accuracy == pytest.approx(recall_score(y, p.argmax(1), average="macro"), rel=1e-14)


def test_a_sampler_draws_balanced_classes() -> None:
    y = np.array([0, 0, 0, 1, 2, 2])
    weights = sampler_weights(y)
    np.testing.assert_array_equal(weights, compute_sample_weight("balanced", y))
    assert np.bincount(y, weights) == pytest.approx([2, 2, 2], rel=1e-15)
    assert sampler_weights(y, "max_ratio", [1, 1, 0, 1, 1, 1]).tolist() == [1, 1, 0, 3, 1.5, 1.5]


def test_a_sampler_never_draws_a_class_that_weighs_nothing() -> None:
    labels, s = [0, 0, 1, 2, 2], [1, 1, 1, 0, 0]
    weights = class_weights(labels, sample_weight=s, zero_count=4.0)
    assert sampler_weights(labels, weights).tolist() == [0.75, 0.75, 1.5, 4, 4]
    assert sampler_weights(labels, weights, s).tolist() == [0.75, 0.75, 1.5, 0, 0]
    # The name of a scheme counts each label once.
    assert sampler_weights(labels, "max_ratio", s).tolist() == [1, 1, 2, 0, 0]
    assert sampler_weights(np.eye(3)[labels], "max_ratio", s).tolist() == [1, 1, 2, 0, 0]


def test_a_sampler_of_sequences_or_images() -> None:
    maps = np.array([[[0, 0], [2, -1]], [[1, 0], [-1, -1]], [[-1, -1], [-1, -1]]])
    for labels, options in ((maps, {"ignore_index": -1}), (np.maximum(maps, 0), {"mask": maps >= 0})):
        weigh = {p: sampler_weights(labels, WEIGHTS, positions=p, **options) for p in ("mean", "max", "sum")}
        assert weigh["mean"].tolist() == [2, 1.25, 0]
        assert weigh["max"].tolist() == [5, 2, 0]
        assert weigh["sum"].tolist() == [6, 2.5, 0]


def test_the_correction_for_a_sampler_is_the_quotient() -> None:
    assert correct_for_sampling([3, 1], [0.5, 4]).tolist() == [6, 0.25]
    assert correct_for_sampling({0: 3, 1: 1}, [0.5, 4]).tolist() == [6, 0.25]
    assert correct_for_sampling(None, [0.5, 4]).tolist() == [2, 0.25]
    assert correct_for_sampling([3, 0], [0.5, 0]).tolist() == [6, 0]


@pytest.mark.parametrize("scheme", ["inverse", "balanced", "max_ratio"])
def test_the_correction_takes_the_scale_out_of_the_samplers_weights(scheme: Any) -> None:
    y = [0, 0, 0, 1]
    # Half of what is drawn is of class 0, instead of three quarters.
    corrected = correct_for_sampling([1, 1], class_weights(y, scheme))
    np.testing.assert_allclose(corrected, [0.75 / 0.5, 0.25 / 0.5], rtol=1e-15)


REFUSALS: dict[str, tuple[str, Any]] = {
    "label-beyond-the-weights": (
        r"`targets` must be class indices from 0 to 2, or `ignore_index`; got 3 at position \(1,\)",
        lambda: sample_weights([0, 3], WEIGHTS),
    ),
    "padding-that-nobody-named": (r"got -1 at position \(1,\)", lambda: sample_weights([0, -1], WEIGHTS)),
    "class-without-a-weight": (
        "`class_weight` must name each class in the targets, or missing_class_weight be .*; got no weight for class 2",
        lambda: sample_weights([0, 2], {0: 1}),
    ),
    "name-without-a-weight": ("no weight for class 'b'", lambda: sample_weights(["a", "b"], {"a": 1})),
    "names-and-indices": (
        "`class_weight` must be a mapping, or ClassWeights with class names, for targets that are names; got list",
        lambda: sample_weights(["a"], [1]),
    ),
    "indices-and-names": ("`class_weight` must have int keys", lambda: sample_weights([0], {"a": 1})),
    "weight-nan": ("`class_weight` must be a finite number; got nan", lambda: sample_weights([0], [np.nan])),
    "sample-weight-infinite": (
        r"`sample_weight` must be finite; got -inf at position \(1,\)",
        lambda: sample_weights([0, 1], WEIGHTS, [1, -np.inf]),
    ),
    "number-of-classes": (
        r"`class_weight` must have shape \(2,\), one per class; got \(3,\)",
        lambda: sample_weights(np.eye(2), WEIGHTS),
    ),
    "sample-weight": (
        r"`sample_weight` must be a scalar or have a shape that is a prefix of \(2,\); got \(2, 1\)",
        lambda: sample_weights([0, 1], WEIGHTS, [[1], [2]]),
    ),
    "scheme": ("`class_weight` must be one of", lambda: sample_weights([0, 1], "equal")),
    "weighting": ("`weighting` must be one of 'label', 'expected'", lambda: sample_weights([0], [1], weighting="term")),
    "combine": ("`combine` must be one of None, 'product', 'sum'", lambda: sample_weights(Y, EACH, combine="mean")),
    "combine-one": (
        "`combine` must be None for a single output; got 'sum'",
        lambda: sample_weights([0], [1], combine="sum"),
    ),
    "combine-shapes": (
        r"`combine` must be None for outputs of different shapes; got \[\(1,\), \(2,\)\]",
        lambda: sample_weights([np.zeros(1), np.zeros(2)], None, combine="sum"),
    ),
    "one-set-for-all": (
        r"`class_weight` must be one for each of the outputs \['kind', 'size'\]; got list",
        lambda: sample_weights(Y, WEIGHTS),
    ),
    "other-outputs": (
        r"`class_weight` must have the outputs \['kind', 'size'\]; got \['kind'\]",
        lambda: sample_weights(Y, {"kind": WEIGHTS}),
    ),
    "another-number-of-outputs": (
        "`class_weight` must be one for each of 2 outputs; got 1",
        lambda: sample_weights(list(Y.values()), [{0: 1}]),
    ),
    "sampler-positions": (
        "`positions` must be 'mean', 'max' or 'sum' for samples with several positions; got None",
        lambda: sampler_weights([[0, 1, 2]]),
    ),
    "sampler-outputs": ("`labels` must be those of N samples of a single output; got dict", lambda: sampler_weights(Y)),
    "sampler-negative": (
        r"`labels` must give each position a weight >= 0; got -2.0 at position \(1,\)",
        lambda: sampler_weights([0, 1], [1, -2]),
    ),
    "sampler-nothing": ("`labels` must give some sample a weight > 0; got none", lambda: sampler_weights([0], [0])),
    "rate-zero": (
        "`sampling_rate` must be > 0 for each class with a weight; got 0 for class 1",
        lambda: correct_for_sampling([1, 1], [1, 0]),
    ),
    "rate-negative": ("`sampling_rate` must be finite and >= 0; got -1", lambda: correct_for_sampling([1], [-1])),
    "rate-shape": (r"`sampling_rate` must be numbers of shape \(C,\)", lambda: correct_for_sampling([1], 1)),
    "rate-length": (r"`class_weight` must have shape \(2,\)", lambda: correct_for_sampling([1], [1, 1])),
}


@pytest.mark.parametrize(("match", "call"), list(REFUSALS.values()), ids=list(REFUSALS))
def test_refusals(match: str, call: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_label_beyond_the_weights_is_an_index_error_too() -> None:
    with pytest.raises(TargetIndexError):
        sample_weights([3], WEIGHTS)
