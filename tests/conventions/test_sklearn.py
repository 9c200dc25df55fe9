"""scikit-learn's log loss against its convention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_sample_weight

from classweight import conventions
from classweight.adapters import numpy as cwn
from classweight.reference import reference

from .configurations import COUNT, assert_same, batch
from .differences import Shown

shows = Shown("sklearn")
pytestmark = pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one:UserWarning")


@pytest.mark.parametrize("case", range(COUNT))
def test_log_loss(case: int) -> None:
    b = batch(case, shapes=[(1,), (2,), (5,), (9,)], min_classes=2, dtypes=("float64", "float64", "float32", "float16"))
    p = b.probabilities()
    weight, normalize = b.pick(None, b.sample_weight), b.pick(True, False)
    # scikit-learn takes a one-hot matrix only where it needs no list of the labels.
    targets, labels = b.pick((b.labels, range(b.num_classes)), (b.one_hot(), None))
    if weight is not None and not weight.any():
        weight = None
    got = log_loss(targets, p, normalize=normalize, sample_weight=weight, labels=labels)
    spec = conventions.sklearn.log_loss(normalize=normalize)
    assert_same((got, None), spec, p, targets, weight, dtype=np.dtype(b.dtype))


@pytest.mark.parametrize("case", range(40))
def test_class_weights_are_those_of_compute_sample_weight(case: int) -> None:
    b = batch(case, shapes=[(5,), (9,)], min_classes=2, dtypes=("float64",))
    p, mapping = b.probabilities(), {c: 0.5 + c for c in sorted(set(b.labels.tolist())) if b.rng.random() < 0.7}
    weight = compute_sample_weight(mapping, b.labels)
    got = log_loss(b.labels, p, sample_weight=weight, labels=range(b.num_classes))
    assert_same((got, None), conventions.sklearn.log_loss(class_weight=mapping), p, b.labels)


@shows("sklearn-zero-weights")
def zero_weights() -> None:
    p, labels = np.array([[0.7, 0.3]]), [0]
    with pytest.raises(ValueError, match="at least one non-zero"):
        log_loss(labels, p, sample_weight=[0.0], labels=[0, 1])
    assert np.isnan(reference(conventions.sklearn.log_loss(), p, labels, [0.0])[0])
    with pytest.raises(ZeroDivisionError):
        log_loss([0, 1], np.repeat(p, 2, 0), sample_weight=[1.0, -1])
    assert np.isnan(reference(conventions.sklearn.log_loss(), np.repeat(p, 2, 0), [0, 1], [1.0, -1])[0])


@shows("sklearn-soft-targets")
def soft_targets() -> None:
    p, y = np.array([[0.7, 0.3], [0.4, 0.6]]), np.array([[0.5, 0.5], [0.2, 0.8]])
    with pytest.raises(ValueError, match="Multioutput target data is not supported"):
        log_loss(y, p)
    expected = -(y * np.log(p)).sum(-1).mean()
    assert reference(conventions.sklearn.log_loss(), p, y)[0] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weight", [[1, -0.5], [-3, 1]])
def test_weights_of_either_sign(weight: Any, normalize: bool) -> None:
    p, labels = np.array([[0.7, 0.3], [0.4, 0.6]]), np.array([0, 1])
    got = log_loss(labels, p, normalize=normalize, sample_weight=weight)
    assert_same((got, None), conventions.sklearn.log_loss(normalize=normalize), p, labels, weight)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_invalid_weights_are_refused_by_both(bad: float) -> None:
    p, labels = np.array([[0.7, 0.3], [0.4, 0.6]]), np.array([0, 1])
    with pytest.raises(ValueError, match="Input sample_weight contains"):
        log_loss(labels, p, sample_weight=[bad, 3])
    with pytest.raises(ValueError, match="`sample_weight` must be finite"):
        cwn.loss(conventions.sklearn.log_loss(), p, labels, [bad, 3])


@pytest.mark.parametrize("difference", shows.ids)
def test_difference(difference: str) -> None:
    shows.checks[difference]()
