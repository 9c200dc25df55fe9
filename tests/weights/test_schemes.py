"""Class weights: schemes, normalisations, classes without a sample, and the result."""

from __future__ import annotations

import pickle
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from classweight import ClassCounts, ClassWeights, SigmoidCrossEntropy, SoftmaxCrossEntropy, class_weights, conventions

IMBALANCED = [100000, 100, 10]
some_counts = st.lists(st.integers(1, 10**9), min_size=1, max_size=8)


def exact(scheme: str, counts: list[int]) -> list[Fraction]:
    n, k, largest = sum(counts), len(counts), max(counts)
    return [
        Fraction({"inverse": 1, "balanced": n, "max_ratio": largest}[scheme]) / (c * (k if scheme == "balanced" else 1))
        for c in counts
    ]


@pytest.mark.parametrize("scheme", ["inverse", "balanced", "max_ratio"])
@given(counts=some_counts)
def test_ratios_are_correctly_rounded(scheme: Any, counts: list[int]) -> None:
    assert list(class_weights(counts=counts, scheme=scheme)) == [float(w) for w in exact(scheme, counts)]


def test_max_ratio_of_a_steep_imbalance() -> None:
    assert class_weights(counts=IMBALANCED, scheme="max_ratio").as_dict() == {0: 1, 1: 1000, 2: 10000}


def test_max_ratio_of_weighted_counts() -> None:
    counts = ClassCounts().update([0, 0, 0, 0], [0.01, 0.03, 0.05, 0.02]).update([1, 1], [0.01, 0.02])
    weights = class_weights(counts, "max_ratio")
    assert weights.as_dict() == {0: 1, 1: pytest.approx(0.11 / 0.03, rel=4e-16)}
    labels, sample_weight = [0, 0, 0, 0, 1, 1], [0.01, 0.03, 0.05, 0.02, 0.01, 0.02]
    assert class_weights(labels, "max_ratio", sample_weight=sample_weight) == weights


@pytest.mark.parametrize("power", [None, 0, 0.25, 0.5, 1, 3])
def test_power(power: float | None) -> None:
    with mpmath.workdps(50):
        expected = [float(mpmath.mpf(n) ** -mpmath.mpf(0.5 if power is None else power)) for n in IMBALANCED]
    np.testing.assert_array_max_ulp(np.asarray(class_weights(counts=IMBALANCED, scheme="power", power=power)), expected)


@pytest.mark.parametrize("beta", [0, 1e-300, 1e-20, 0.3, 0.5, 0.999, 0.9999, 1 - 1e-12, np.nextafter(1, 0)])
def test_effective_number_is_accurate_for_every_beta_and_count(beta: float) -> None:
    counts = [0.01, 0.25, 1, 2, 17, 10**6, 10**12, 2**53]
    with mpmath.workdps(400):
        b = mpmath.mpf(float(beta))
        expected = [float((1 - b) / (1 - b ** mpmath.mpf(n))) for n in counts]
    weights = np.asarray(class_weights(counts=counts, scheme="effective_number", beta=beta))
    # 1 - beta, the logarithm, the product, expm1 and the quotient are rounded, each by an ULP at most.
    np.testing.assert_allclose(weights, expected, rtol=5 * 2.0**-52, atol=0)


def test_effective_number_has_the_default_of_the_documentation() -> None:
    weights = class_weights(counts=IMBALANCED, scheme="effective_number")
    assert weights == class_weights(counts=IMBALANCED, scheme="effective_number", beta=0.999)
    assert weights.beta == 0.999


# The Cityscapes weights in ERFNet's published training code (train/main.py), of its decoder and of its encoder, which
# sees smaller maps; ENet's formula with 1.1 and 1.2 in place of 1.02. Class 19, void, is given 0.
ERFNET_DECODER = (
    *(2.8149201869965, 6.9850029945374, 3.7890393733978, 9.9428062438965, 9.7702074050903, 9.5110931396484),
    *(10.311357498169, 10.026463508606, 4.6323022842407, 9.5608062744141, 7.8698215484619, 9.5168733596802),
    *(10.373730659485, 6.6616044044495, 10.260489463806, 10.287888526917, 10.289801597595, 10.405355453491),
    10.138095855713,
)
ERFNET_ENCODER = (
    *(2.3653597831726, 4.4237880706787, 2.9691488742828, 5.3442072868347, 5.2983593940735, 5.2275490760803),
    *(5.4394111633301, 5.3659925460815, 3.4170460700989, 5.2414722442627, 4.7376127243042, 5.2286224365234),
    *(5.455126285553, 4.3019247055054, 5.4264230728149, 5.4331531524658, 5.433765411377, 5.4631009101868),
    5.3947434425354,
)


def test_log_scaled_gives_the_weights_of_published_code() -> None:
    """Of one set of shares come both networks' weights."""
    shares = [float(np.exp(1 / w)) - 1.1 for w in ERFNET_DECODER]
    counts = [*shares, 1 - sum(shares)]
    decoder, encoder = (class_weights(counts=counts, scheme="log_scaled", offset=c) for c in (1.1, 1.2))
    np.testing.assert_allclose(list(decoder)[:19], ERFNET_DECODER, rtol=1e-12)
    np.testing.assert_allclose(list(encoder)[:19], ERFNET_ENCODER, rtol=5e-3)


@pytest.mark.parametrize("offset", [None, 1, 1 + 2**-40, 1.02, 1.2, 100.0])
def test_log_scaled_is_the_formula_of_enet(offset: float | None) -> None:
    counts = [1, 7, 10**6, 10**12]
    with mpmath.workdps(50):
        c = mpmath.mpf(1.02 if offset is None else offset)
        expected = [float(1 / mpmath.log(c + mpmath.mpf(n) / sum(counts))) for n in counts]
    weights = class_weights(counts=counts, scheme="log_scaled", offset=offset)
    # The share, the sum with offset - 1, the logarithm and the quotient are rounded.
    np.testing.assert_array_max_ulp(np.asarray(weights), expected, maxulp=4)
    assert weights.offset == (offset or 1.02)


def test_median_frequency_is_that_of_eigen_and_fergus() -> None:
    """freq(c) is the number of pixels of class c divided by all pixels of the images in which c is present."""
    rng = np.random.default_rng(0)
    images = [
        rng.choice(5, size=(4, 6), p=p) for p in ([0.7, 0.3, 0, 0, 0], [0.5, 0, 0.3, 0.2, 0], [0.9, 0, 0, 0, 0.1])
    ]
    frequency = [
        sum((image == c).sum() for image in images) / sum(image.size for image in images if (image == c).any())
        for c in range(5)
    ]
    totals = sum(image.size * (np.bincount(image.ravel(), minlength=5) > 0) for image in images)
    weights = class_weights(np.stack(images), "median_frequency", totals=totals)
    np.testing.assert_allclose(np.asarray(weights), np.median(frequency) / frequency, rtol=1e-15)
    assert weights.totals == tuple(totals)
    assert list(class_weights(counts=[8, 2, 4], scheme="median_frequency")) == [0.5, 2, 1]


@pytest.mark.parametrize("totals", [[8, 8], [8, 8, 3], [8, 8, np.nan], [[8, 8, 8]], ["8"] * 3], ids=str)
def test_totals_that_are_no_pixels_of_images_are_refused(totals: Any) -> None:
    with pytest.raises(ValueError, match="`totals` must be "):
        class_weights(counts=[8, 2, 4], scheme="median_frequency", totals=totals)


@pytest.mark.parametrize("offset", [0.99, 0, -1, np.inf, np.nan])
def test_an_offset_below_1_is_refused(offset: float) -> None:
    with pytest.raises(ValueError, match="`offset` must be finite and >= 1"):
        class_weights(counts=[1, 2], scheme="log_scaled", offset=offset)


SCHEMES = ["inverse", "balanced", "max_ratio", "power", "effective_number", "log_scaled", "median_frequency"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("normalize", ["mean_class", "mean_sample", "max"])
@given(counts=some_counts)
def test_normalisations(scheme: Any, normalize: Any, counts: list[int]) -> None:
    plain = np.asarray(class_weights(counts=counts, scheme=scheme))
    weights = np.asarray(class_weights(counts=counts, scheme=scheme, normalize=normalize))
    n = np.array(counts)
    mean = {"mean_class": weights.mean(), "mean_sample": (n * weights).sum() / n.sum(), "max": weights.max()}
    assert mean[normalize] == pytest.approx(1, rel=1e-14)
    np.testing.assert_allclose(weights * plain[0], plain * weights[0], rtol=1e-14)


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), data=st.data())
def test_balanced_is_scikit_learns_to_the_last_bit(labels: list[int], data: st.DataObject) -> None:
    found, y = np.unique(labels, return_inverse=True)
    s = data.draw(st.none() | st.lists(st.floats(1e-3, 1e3), min_size=len(y), max_size=len(y)))
    expected = compute_class_weight("balanced", classes=np.arange(len(found)), y=y, sample_weight=s)
    np.testing.assert_array_equal(np.asarray(class_weights(y, sample_weight=s)), expected)
    names = np.array(["ant", "bee", "cat", "dog", "eel"])[labels]
    expected = compute_class_weight("balanced", classes=np.unique(names), y=names)
    np.testing.assert_array_equal(np.asarray(class_weights(names)), expected)


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_class_that_weighs_nothing_is_refused_where_scikit_learn_gives_inf() -> None:
    y, s = np.array([0, 1, 1]), [0.0, 1, 1]
    assert compute_class_weight("balanced", classes=np.arange(2), y=y, sample_weight=s)[0] == np.inf
    with pytest.raises(ValueError, match="none of class 0"):
        class_weights(y, sample_weight=s)
    assert list(class_weights(y, sample_weight=s, zero_count="zero")) == [0, 1]


# Each way to hand in a class 2 that occurs and weighs nothing.
WEIGHTLESS: dict[str, tuple[Any, dict[str, Any]]] = {
    "last": ([0, 0, 1, 1, 2, 2], {"sample_weight": [1, 1, 1, 1, 0, 0]}),
    "map": ([[0, 0, 1], [1, 2, 2]], {"sample_weight": [[1, 1, 1], [1, 0, 0]]}),
    "bool-weights": ([0, 0, 1, 1, 2, 2], {"sample_weight": np.array([1, 1, 1, 1, 0, 0], bool)}),
    "one-hot": (np.eye(3)[[0, 0, 1, 1, 2, 2]], {"sample_weight": [1, 1, 1, 1, 0, 0]}),
    "one-hot-masked": (np.eye(3)[[0, 0, 1, 1, 2, 2]], {"mask": [True] * 4 + [False] * 2}),
    "masked-beside": ([0, 0, 1, 1, 2, 2], {"mask": [True] * 5 + [False], "sample_weight": [1, 1, 1, 1, 0, 1]}),
    "names": (["0", "0", "1", "1", "2", "2"], {"sample_weight": [1, 1, 1, 1, 0, 0]}),
    "counts": (ClassCounts().update([0, 0, 1, 1]) + ClassCounts().update([2], [0.0]), {}),
    "mapping": ({0: 2, 1: 2, 2: 0}, {}),
    "stream": (ClassCounts().update([2, 0, 0], [0, 1, 1]).update([1, 1], [1, 1]), {}),
}


@pytest.mark.parametrize(("labels", "options"), list(WEIGHTLESS.values()), ids=list(WEIGHTLESS))
def test_a_class_that_occurs_and_weighs_nothing_goes_to_the_policy(labels: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"none of class '?2'?( with a weight > 0)?$"):
        class_weights(labels, **options)
    assert class_weights(labels, zero_count="zero", **options).values == (1, 1, 0)
    assert class_weights(labels, zero_count=0.5, **options).values == (1, 1, 0.5)


def test_classes_that_occur_and_weigh_nothing_are_counted_0_wherever_they_stand() -> None:
    counts = ClassCounts().update([3, 1, 3, 0], [0, 2, 0, 0])
    assert counts.as_dict() == {0: 0, 1: 2, 2: 0, 3: 0}
    assert ClassCounts.from_dict(counts.to_dict()) == counts
    assert (ClassCounts() + counts).as_dict() == counts.as_dict()
    assert ClassCounts().update(["b", "a"], [0, 1]).as_dict(names=True) == {"a": 1, "b": 0}
    assert ClassCounts().update([3, 1, 7], [0, 2, 1], mask=[True, True, False]).as_dict() == {0: 0, 1: 2, 2: 0, 3: 0}


@pytest.mark.parametrize(("policy", "weight"), [("zero", 0), ("largest", 3), (0.25, 0.25), (7, 7)])
def test_a_class_without_a_sample_weighs_what_the_policy_says(policy: Any, weight: float) -> None:
    # The others' weights are those of the other classes alone.
    for labels in ([0, 0, 0, 2], np.array([0, 0, 0, 2], np.uint8)):
        weights = class_weights(labels, "max_ratio", num_classes=4, zero_count=policy)
        assert list(weights) == [1, weight, 3, weight]
        assert weights.counts == (3, 0, 1, 0)
    balanced = class_weights([0, 0, 0, 2], zero_count=policy)
    assert list(balanced)[::2] == [4 / (2 * 3), 4 / (2 * 1)]


def test_the_scale_is_that_of_the_classes_with_samples() -> None:
    weights = class_weights(counts=[3, 0, 1], scheme="inverse", normalize="mean_class", zero_count="largest")
    assert list(weights) == [0.5, 1.5, 1.5]
    weights = class_weights(counts=[3, 0, 1], scheme="inverse", normalize="mean_sample", zero_count=9.0)
    assert list(weights) == pytest.approx([2 / 3, 9, 2], rel=1e-15)


def test_the_table() -> None:
    weights = class_weights(counts={"cat": 6, "horse": 2, "ox": 0.5}, scheme="inverse", normalize="max")
    assert str(weights).splitlines() == [
        "class  name   count     share     weight  effective share",
        "    0  cat        6  0.705882  0.0833333         0.333333",
        "    1  horse      2  0.235294       0.25         0.333333",
        "    2  ox       0.5  0.058824          1         0.333333",
    ]


def test_the_table_of_many_classes_shows_both_ends() -> None:
    lines = str(class_weights(counts=range(1, 1001))).splitlines()
    assert len(lines) == 62
    assert lines[1].split()[:2] == ["0", "1"]
    assert lines[31].split() == ["..."] * 5
    assert lines[-1].split()[:2] == ["999", "1000"]


def test_the_result_remembers_and_compares() -> None:
    weights = class_weights(["b", "a", "b"], "power", normalize="max", power=1, zero_count="zero")
    assert weights == ClassWeights((1.0, 0.5), (1, 2), ("a", "b"), "power", 1.0, None, "max", "zero")
    assert pickle.loads(pickle.dumps(weights)) == weights
    assert hash(weights) == hash(class_weights(["a", "b", "b"], "power", normalize="max", power=1, zero_count="zero"))
    assert weights != class_weights(["a", "b", "b"], "power", normalize="max", power=1)
    assert repr(class_weights([0, 1])) == "ClassWeights(values=(1.0, 1.0), counts=(1, 1))"
    assert weights.as_dict() == {0: 1.0, 1: 0.5}
    assert weights.as_dict(names=True) == {"a": 1.0, "b": 0.5}
    np.testing.assert_array_equal(weights.share, [1 / 3, 2 / 3])
    np.testing.assert_array_equal(weights.effective_share, [0.5, 0.5])
    with pytest.raises(AttributeError):
        weights.values = (1.0, 1.0)


def test_the_result_is_an_array_and_a_sequence() -> None:
    weights = class_weights([0, 1, 1])
    assert np.asarray(weights).dtype == np.float64
    assert np.asarray(weights, np.float32).dtype == np.float32
    assert (len(weights), weights[1], list(weights)) == (2, 0.75, [1.5, 0.75])
    with pytest.raises(ValueError, match="copy"):
        weights.__array__(copy=False)


def test_the_result_goes_into_a_spec() -> None:
    weights = class_weights([0, 1, 1])
    expected = SoftmaxCrossEntropy(class_weight=[1.5, 0.75])
    assert SoftmaxCrossEntropy(class_weight=weights) == SoftmaxCrossEntropy(class_weight=(1.5, 0.75)) == expected
    assert SoftmaxCrossEntropy(class_weight=weights.as_dict()).class_weight_values(2) == (1.5, 0.75)
    assert conventions.torch.cross_entropy(weight=weights).class_weight == (1.5, 0.75)
    assert conventions.keras.sparse_categorical_crossentropy(class_weight=weights).class_weight == (1.5, 0.75)
    assert SigmoidCrossEntropy(class_weight=weights).class_weight == (1.5, 0.75)


def test_the_outputs_of_a_multi_label_problem_make_pairs_for_a_binary_loss() -> None:
    y = np.array([[0, 1], [0, 1], [0, 0], [1, 1]])
    pairs = tuple(zip(*class_weights(list(y.T), "inverse"), strict=True))
    assert SigmoidCrossEntropy(class_weight=pairs).class_weight == ((1 / 3, 1.0), (1.0, 1 / 3))


REFUSALS: dict[str, tuple[str, dict[str, Any]]] = {
    "scheme": ("`scheme` must be one of 'inverse', 'balanced', .*; got 'linear'", {"scheme": "linear"}),
    "normalize": ("`normalize` must be one of None, 'mean_class', .*; got 'sum'", {"normalize": "sum"}),
    "policy": ("`zero_count` must be 'error', 'zero', 'largest' or a finite number >= 0", {"zero_count": -1}),
    "policy-name": ("`zero_count` must be 'error'", {"zero_count": "one"}),
    "policy-bool": ("`zero_count` must be 'error'", {"zero_count": True}),
    "policy-infinite": ("`zero_count` must be 'error'", {"zero_count": np.inf}),
    "power-elsewhere": ("`power` must be None unless the scheme is 'power'; got 0.5 with 'balanced'", {"power": 0.5}),
    "beta-elsewhere": ("`beta` must be None unless the scheme is 'effective_number'", {"beta": 0.9}),
    "power-negative": ("`power` must be finite and >= 0; got -1", {"scheme": "power", "power": -1}),
    "power-too-large": (
        "`scheme` must give finite weights > 0 for these counts; got 0.0 to 1.0",
        {"counts": [1, 10], "scheme": "power", "power": 400},
    ),
    "beta-one": ("`beta` must be a number from 0 to 1 .1 excluded.", {"scheme": "effective_number", "beta": 1}),
    "no-sample-of-a-class": (
        "`counts` must hold a sample of each of the 3 classes, or `zero_count` say .*; got none of class 1",
        {"counts": [1, 0, 1]},
    ),
    "no-sample-of-a-name": ("none of class 'b'", {"counts": {"a": 1, "b": 0}}),
    "no-sample": ("`counts` must hold at least one sample; got none", {"counts": [0, 0], "zero_count": "zero"}),
    "no-label": ("`labels` must hold at least one sample", {"labels": [], "counts": None}),
    "neither": ("`counts` must be given where labels are not, and only there; got neither", {"counts": None}),
    "both": ("`counts` must be given .*; got both", {"labels": [0, 1]}),
    "counts-for-labels": (
        "an array of counts goes to `counts`.; got none of class 0",
        {"labels": [100000, 100, 10], "counts": None},
    ),
    "counts-negative": (r"`counts` must be finite and >= 0; got -1 at position \(1,\)", {"counts": [1, -1]}),
    "counts-nan": ("`counts` must be finite and >= 0; got nan", {"counts": {0: np.nan}}),
    "counts-of-two-axes": (r"`counts` must be .* of shape \(C,\).*; got int64 of shape \(1, 2\)", {"counts": [[1, 2]]}),
    "counts-beyond": ("`counts` must have class indices from 0 to 1; got 2", {"counts": {2: 3}, "num_classes": 2}),
    "counts-of-a-float": ("`counts` must have int or str keys; got 0.5", {"counts": {0.5: 3}}),
    "weights-with-counts": ("`sample_weight` must be None with counts", {"sample_weight": [1, 1]}),
    "number-and-names": (
        "`class_names` must be different names, one for each of 3 classes; got .'a', 'b'.",
        {"num_classes": 3, "class_names": ["a", "b"]},
    ),
    "one-name-twice": ("`class_names` must be different names, one per class", {"class_names": ["a", "a"]}),
    "names-of-numbers": ("`class_names` must be a sequence of strings", {"class_names": [1, 2]}),
    "number": ("`num_classes` must be >= 1; got 0", {"num_classes": 0}),
    "names-where-there-are-none": ("`names` must be False", {"names": True}),
}


@pytest.mark.parametrize(("match", "arguments"), list(REFUSALS.values()), ids=list(REFUSALS))
def test_refusals(match: str, arguments: dict[str, Any]) -> None:
    names = {key: arguments[key] for key in arguments if key == "names"}
    arguments = {"counts": [1, 2], **{key: arguments[key] for key in arguments if key != "names"}}
    with pytest.raises((ValueError, TypeError), match=match) as caught:
        class_weights(**arguments).as_dict(**names)
    assert "\n" not in str(caught.value)
