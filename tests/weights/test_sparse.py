"""Sparse matrices of labels, as scikit-learn's users hold multi-label targets: what the dense ones give."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.utils.class_weight import compute_sample_weight

from classweight import ClassCounts, class_weights, sample_weights, sampler_weights

FORMATS = [f"{name}_{kind}" for name in ("csr", "csc", "coo", "lil", "dok") for kind in ("matrix", "array")]
RNG = np.random.default_rng(0)
MULTI_LABEL = (RNG.random((40, 5)) < 0.3).astype(np.int64)
SOFT = np.where(RNG.random((40, 5)) < 0.5, RNG.integers(1, 9, (40, 5)) / 8, 0.0)
SOFT[3] = 0  # a row without an entry


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float32, np.float64])
def test_a_multi_label_matrix_counts_as_it_does_dense(form: str, dtype: Any) -> None:
    sparse = getattr(scipy.sparse, form)(MULTI_LABEL.astype(dtype))
    counts = ClassCounts().update(sparse)
    expected = ClassCounts().update(MULTI_LABEL.astype(dtype), one_hot=True)
    assert counts == expected
    assert counts.counts.tolist() == MULTI_LABEL.sum(0).tolist()
    assert counts.counts.dtype == expected.counts.dtype
    assert class_weights(sparse) == class_weights(MULTI_LABEL.astype(dtype), one_hot=True)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one-hot": {"one_hot": True},
    "weights": {"sample_weight": RNG.integers(0, 9, 40) / 8},
    "weight": {"sample_weight": 0.25},
    "mask": {"mask": RNG.random(40) < 0.7},
    "masked-all": {"mask": False},
    "weights-and-mask": {"sample_weight": RNG.integers(0, 9, 40) / 8, "mask": RNG.random(40) < 0.7},
}


@pytest.mark.parametrize("options", list(OPTIONS.values()), ids=list(OPTIONS))
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("matrix", [SOFT, MULTI_LABEL], ids=["soft", "multi-label"])
def test_every_option_is_as_for_dense_distributions(matrix: Any, axis: int, options: dict[str, Any]) -> None:
    dense = matrix if axis else matrix.T
    sparse = scipy.sparse.csc_array(dense)
    expected = ClassCounts().update(dense, axis=axis, **{"one_hot": True, **options})
    assert ClassCounts().update(sparse, axis=axis, **options) == expected
    for weighting in ("label", "expected"):
        rest: Any = {"axis": axis, "weighting": weighting, "missing_class_weight": 1.0, **options}
        found = sample_weights(sparse, [0.5, -2, 1, 4, 0], **rest)
        np.testing.assert_array_equal(found, sample_weights(dense, [0.5, -2, 1, 4, 0], **{"one_hot": True, **rest}))
        assert found.dtype == np.float64


def test_one_hot_rows_are_drawn_as_their_labels_are() -> None:
    labels = [0, 0, 2, 1, 2, 2]
    one_hot = scipy.sparse.csr_matrix(np.eye(3)[labels])
    np.testing.assert_array_equal(sampler_weights(one_hot), sampler_weights(labels))
    np.testing.assert_array_equal(sampler_weights(one_hot, "max_ratio"), sampler_weights(labels, "max_ratio"))


def test_entries_that_are_stored_twice_add_up_and_the_matrix_stays_as_it_was() -> None:
    twice = scipy.sparse.coo_matrix(([0.5, 0.25, 0.5, 0.0], ([0, 0, 0, 1], [1, 0, 1, 1])), (2, 3))
    rows = scipy.sparse.csr_matrix((np.array([0.5, 0.25, 0.5, 0.0]), [1, 0, 1, 1], [0, 3, 4]), (2, 3))
    for matrix in (twice, rows):
        assert ClassCounts().update(matrix).counts.tolist() == [0.25, 1, 0]
        assert sample_weights(matrix, [1, 2, 4]).tolist() == [2, 1]
        assert matrix.nnz == 4


def test_what_is_masked_may_be_anything() -> None:
    matrix = scipy.sparse.csr_array(np.array([[0, 1.0], [np.nan, -1]]))
    assert ClassCounts().update(matrix, mask=[True, False]).counts.tolist() == [0, 1]


def test_a_column_without_an_entry_is_a_class_for_the_policy() -> None:
    matrix = scipy.sparse.csr_matrix(np.array([[1, 0, 0], [1, 1, 0]]))
    with pytest.raises(ValueError, match="got none of class 2"):
        class_weights(matrix)
    assert class_weights(matrix, "inverse", zero_count="zero").values == (0.5, 1, 0)
    with pytest.raises(ValueError, match="got none of class 1 with a weight > 0"):
        class_weights(matrix, sample_weight=[1, 0])


def test_columns_are_outputs_as_in_scikit_learn() -> None:
    matrix = scipy.sparse.csc_matrix(MULTI_LABEL)
    columns = [matrix[:, [c]] for c in range(matrix.shape[1])]
    weights = sample_weights(columns, "balanced", combine="product", one_hot=False)
    np.testing.assert_allclose(weights[:, 0], compute_sample_weight("balanced", matrix), rtol=1e-15)


def test_nothing_as_large_as_the_matrix_is_made() -> None:
    matrix = scipy.sparse.random_array((20_000, 30_000), density=1e-6, format="csr", rng=np.random.default_rng(0))
    tracemalloc.start()
    try:
        counts = ClassCounts().update(matrix, sample_weight=np.ones(20_000))
        weights = sample_weights(matrix, np.ones(30_000), weighting="expected")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(counts.counts, matrix.sum(0), rtol=1e-15)
    np.testing.assert_allclose(weights, matrix.sum(1), rtol=1e-15)
    assert peak < 20_000 * 30_000 / 10


REFUSALS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "column": ("`one_hot` must be given where `labels` are a sparse row or column", MULTI_LABEL[:, :1], {}),
    "row": ("`one_hot` must be given where `labels` are a sparse row or column", MULTI_LABEL[:1], {}),
    "axis": (r"`axis` must be an axis of the labels, whose shape is \(40, 5\); got 2", MULTI_LABEL, {"axis": 2}),
    "negative": (r"`labels` must be finite and >= 0; got -1 at position \(1, 0\)", [[0, 1], [-1, 0]], {}),
    "negative-other-axis": (r"got -1 at position \(1, 0\)", [[0, 1], [-1, 0]], {"axis": 0}),
    "nan": (r"`labels` must be finite and >= 0; got nan at position \(0, 1\)", [[0, np.nan], [1, 0]], {}),
    "complex": (
        "`labels` must be class indices, class names or distributions; got dtype complex128",
        [[1j, 0]] * 2,
        {},
    ),
    "ignored": ("`ignore_index` must be None unless", MULTI_LABEL, {"ignore_index": 0}),
    "mask": (r"`mask` must be a scalar or have a shape that is a prefix of \(40,\)", MULTI_LABEL, {"mask": [True]}),
    "weights": ("`sample_weight` must be a scalar or have a shape", MULTI_LABEL, {"sample_weight": np.ones((40, 5))}),
}


@pytest.mark.parametrize(("match", "matrix", "options"), list(REFUSALS.values()), ids=list(REFUSALS))
def test_refusals(match: str, matrix: Any, options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=match) as caught:
        ClassCounts().update(scipy.sparse.csr_matrix(np.array(matrix)), **options)
    assert "\n" not in str(caught.value)


def test_another_number_of_columns_than_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="`labels` must have 3 entries, one per class, along axis 1; got 5"):
        ClassCounts(3).update(scipy.sparse.csr_matrix(MULTI_LABEL))


def test_scipy_is_not_imported_for_it() -> None:
    code = """
import sys
from classweight import ClassCounts
class Matrix:
    shape, row, col, data = (2, 2), [0, 1], [1, 1], [1, 2]
    def tocsr(self, copy=True): return self
    def tocoo(self): return self
    def toarray(self): raise AssertionError
    def sum_duplicates(self): pass
print(ClassCounts().update(Matrix()).counts.tolist(), "scipy" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[0, 3] False\n"
