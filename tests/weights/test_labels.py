"""Labels of every kind say the same, and what is ambiguous is refused."""

from __future__ import annotations

from typing import Any

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

from classweight import ClassCounts, TargetIndexError, class_weights

LABELS = np.array([0, 2, 2, 1, 2, 0])
COUNTS = [2, 1, 3]
ONE_HOT = np.eye(3)[LABELS]


class OnDevice:
    """An array of CuPy, as far as it can be told from here: NumPy is refused, and `get` copies to the host."""

    __cuda_array_interface__ = {"version": 3}  # noqa: RUF012

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)
        self.shape = self.values.shape

    def get(self) -> Any:
        return self.values

    def __array__(self, *arguments: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")


def counted(labels: Any, **options: Any) -> Any:
    return ClassCounts().update(labels, **options).counts.tolist()


KINDS: dict[str, Any] = {
    "list": LABELS.tolist(),
    "tuple": tuple(LABELS.tolist()),
    "uint8": LABELS.astype(np.uint8),
    "uint64": LABELS.astype(np.uint64),
    "big-endian": LABELS.astype(">i4"),
    "float32": LABELS.astype(np.float32),
    "float16": LABELS.astype(np.float16),
    "objects": LABELS.astype(object),
    "column": LABELS[:, None],
    "float-column": LABELS[:, None].astype(np.float64),
    "map": LABELS.reshape(1, 2, 3),
    "strided": np.stack([LABELS, LABELS * 0 + 7], axis=1)[:, 0],
    "read-only": np.frombuffer(LABELS.tobytes(), np.int64),
    "scalars": [np.int32(label) for label in LABELS],
    "array-api": array_api_strict.asarray(LABELS),
    "device": OnDevice(LABELS),
    "devices": [OnDevice(label) for label in LABELS],
    "one-hot": ONE_HOT,
    "one-hot-nested": ONE_HOT.tolist(),
    "one-hot-float16": ONE_HOT.astype(np.float16),
    "one-hot-bfloat16": ONE_HOT.astype(ml_dtypes.bfloat16),
}


@pytest.mark.parametrize("labels", list(KINDS.values()), ids=list(KINDS))
def test_labels_of_every_kind_count_the_same(labels: Any) -> None:
    assert counted(labels) == COUNTS


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.float32])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot_along_any_axis_of_a_map(dtype: Any, axis: int) -> None:
    one_hot = np.moveaxis(np.eye(3)[LABELS.reshape(2, 1, 3)], -1, axis).astype(dtype)
    assert counted(one_hot, one_hot=True, axis=axis) == COUNTS
    counts = ClassCounts().update(one_hot, one_hot=True, axis=axis).counts
    assert counts.dtype == (np.float64 if dtype is np.float32 else np.int64)


def test_soft_labels_count_as_their_entries() -> None:
    soft = np.array([[0.5, 0.25, 0.25], [0, 0.125, 0.875], [0, 0, 0]])
    assert counted(soft) == [0.5, 0.375, 1.125]
    assert counted(soft, sample_weight=[4, 8, 1]) == [2, 2, 8]
    assert counted(soft, mask=[True, False, True]) == [0.5, 0.25, 0.25]
    assert counted([2.0, 5.0], one_hot=True) == [2, 5]


def test_bools_are_two_classes() -> None:
    assert counted(np.array([True, False, True])) == [1, 2]


@pytest.mark.parametrize(
    "names",
    [
        ["ox", "ant", "ant", "cat", "ant", "ox"],
        np.array(["ox", "ant", "ant", "cat", "ant", "ox"]),
        np.array(["ox", "ant", "ant", "cat", "ant", "ox"], object).reshape(2, 3),
        np.array([b"ox", b"ant", b"ant", b"cat", b"ant", b"ox"]),
        [b"ox", "ant", b"ant", "cat", "ant", "ox"],
    ],
    ids=["list", "str", "objects", "bytes", "mixed"],
)
def test_names_are_sorted_and_remembered(names: Any) -> None:
    counts = ClassCounts().update(names)
    assert counts.class_names == ("ant", "cat", "ox")
    assert counts.counts.tolist() == [3, 1, 2]
    assert ClassCounts().update(names, np.ones(np.shape(names))).counts.tolist() == [3, 1, 2]
    assert ClassCounts().update(names, mask=np.zeros(np.shape(names), bool)).counts.tolist() == []


def test_weights_and_masks_spread_over_what_they_are_a_prefix_of() -> None:
    maps = LABELS.reshape(2, 1, 3)
    assert counted(maps, sample_weight=0.5) == [1, 0.5, 1.5]
    assert counted(maps, sample_weight=[1, 10]) == [11, 10, 12]
    assert counted(maps, mask=[False, True]) == [1, 1, 1]
    assert counted(maps, sample_weight=np.arange(6).reshape(2, 1, 3)) == [0 + 5, 3, 1 + 2 + 4]
    assert counted(maps.transpose(2, 1, 0), sample_weight=[0, 1, 10]) == [0 + 10, 0, 1 + 10 + 1]


def test_what_is_left_out_may_be_anything() -> None:
    assert counted([0, -100, 1, -100], ignore_index=-100) == [1, 1]
    assert counted(np.array([0, 255, 1], np.uint8), ignore_index=255) == [1, 1]
    assert counted(np.array([0, 1], np.uint8), ignore_index=-1) == [1, 1]
    assert counted([0, 9, 1, -7], mask=[True, False, True, False], sample_weight=[1, 2, 3, 4]) == [1, 3]
    assert counted([0, 9, 255], mask=[True, False, True], ignore_index=255) == [1]
    assert counted([0, np.nan, 1], mask=[True, False, True]) == [1, 1]
    assert counted([[0, 1], [np.nan, -1]], mask=[True, False]) == [0, 1]
    assert counted([[0, 1], [-1, -1]], mask=[True, False], one_hot=True) == [0, 1]
    assert counted(["a", "?"], mask=[True, False]) == [1]


def test_several_outputs_are_a_mapping_or_a_list_of_arrays() -> None:
    a, b = np.array([0, 1, 1]), np.array(["x", "x", "y"])
    expected = [class_weights(a), class_weights(b)]
    assert class_weights([a, b]) == expected
    assert class_weights((a, b)) == expected
    assert class_weights({"a": a, "b": b.tolist()}) == dict(zip("ab", expected, strict=True))
    assert class_weights({"a": {0: 1, 1: 2}, "b": ClassCounts().update(b)}) == dict(zip("ab", expected, strict=True))
    # A list of lists of numbers is one array.
    assert class_weights([[0, 1, 1], [0, 1, 1]]).counts == (2, 4)


def test_a_mapping_of_numbers_is_counts() -> None:
    for two in (2, 2.0, np.int64(2), np.array(2), array_api_strict.asarray(2)):
        assert class_weights({0: 1, 1: two}).counts == (1, 2)


REFUSALS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "negative": (
        r"`labels` must be class indices from 0 to .* or `ignore_index`; got -1 at position \(1,\)",
        [0, -1],
        {},
    ),
    "too-large": (
        r"`labels` must be class indices from 0 to 16777215 unless num_classes is given.*; got 1099511627776",
        [0, 1 << 40],
        {},
    ),
    "beyond-int64": ("got 18446744073709551615", np.array([2**64 - 1], np.uint64), {}),
    "fraction": (
        r"`labels` must be whole numbers where they are class indices; got 0.5 at position \(1,\)",
        [0, 0.5],
        {},
    ),
    "nan": (r"`labels` must be whole numbers .*; got nan at position \(2,\)", [0, 1, np.nan], {}),
    "infinite": ("`labels` must be whole numbers .*; got inf", [np.inf], {}),
    "complex": ("`labels` must be class indices, class names or distributions; got dtype complex128", [1j], {}),
    "none": ("`labels` must be class indices, class names or distributions; got NoneType and int", [0, None], {}),
    "generator": ("`labels` must be .*; got generator", (label for label in LABELS), {}),
    "ragged": ("`labels` must be values of a regular shape that the host can read; got list", [[0, 1], [0]], {}),
    "numbers-and-names": ("`labels` must be .*; got int and str", np.array(["a", 1], object), {}),
    "masked-array": (
        "`labels` must be a plain array, with what is masked in `mask`; got a masked array",
        np.ma.array([0, 1], mask=[False, True]),
        {},
    ),
    "one-hot-integers": (
        "`one_hot` must be given for integers that look like either; got None",
        ONE_HOT.astype(np.int64),
        {},
    ),
    "one-hot-bools": ("`one_hot` must be given", ONE_HOT.astype(bool), {}),
    "one-hot-with-padding": ("`one_hot` must be given", [[0, 1, 0], [0, 0, 0]], {}),
    "float-map": ("`one_hot` must be given for numbers that do not add up to 1", [[0.0, 2.0], [1.0, 1.0]], {}),
    "one-hot-names": (
        "`one_hot` must be None or False unless `labels` are numbers along an axis",
        ["a"],
        {"one_hot": True},
    ),
    "one-hot-scalar": ("`one_hot` must be None or False", 1, {"one_hot": True}),
    "axis": (r"`axis` must be an axis of the labels, whose shape is \(6, 3\); got 2", ONE_HOT, {"axis": 2}),
    "soft-negative": (r"`labels` must be finite and >= 0; got -1.0 at position \(0, 1\)", [[2.0, -1.0]], {}),
    "soft-nan": ("`labels` must be finite and >= 0; got nan", [[np.nan, 1.0]], {}),
    "ignored-distribution": ("`ignore_index` must be None unless the labels are class", ONE_HOT, {"ignore_index": 0}),
    "ignored-name": ("`ignore_index` must be None unless the labels are class", ["a"], {"ignore_index": 0}),
    "weight-shape": (
        r"`sample_weight` must be a scalar or have a shape that is a prefix of \(2, 2\); got \(3,\)",
        [[0, 2], [1, 2]],
        {"sample_weight": np.ones(3)},
    ),
    "weight-of-entries": (r"prefix of \(6,\); got \(6, 3\)", ONE_HOT, {"sample_weight": ONE_HOT}),
    "weight-negative": (r"`sample_weight` must be finite and >= 0; got -1", [0, 1], {"sample_weight": [1, -1]}),
    "weight-nan": ("`sample_weight` must be finite and >= 0; got nan", [0], {"sample_weight": [np.nan]}),
    "weight-names": ("`sample_weight` must be real numbers", [0], {"sample_weight": ["a"]}),
    "mask-numbers": ("`mask` must be bool; got int64", [0, 1], {"mask": [1, 0]}),
    "mask-shape": (r"`mask` must be a scalar or have a shape that is a prefix of \(2,\)", [0, 1], {"mask": [True]}),
}


@pytest.mark.parametrize(("match", "labels", "options"), list(REFUSALS.values()), ids=list(REFUSALS))
def test_refusals(match: str, labels: Any, options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=match) as caught:
        ClassCounts().update(labels, **options)
    assert "\n" not in str(caught.value)


def test_an_index_out_of_range_is_an_index_error_too() -> None:
    with pytest.raises(TargetIndexError, match=r"from 0 to 2, or `ignore_index`; got 3 at position \(0, 1\)"):
        class_weights([[0, 3], [2, 1]], num_classes=3)


def test_what_looks_like_either_is_read_as_it_is_said_to_be() -> None:
    either = ONE_HOT.astype(np.int64)
    assert counted(either, one_hot=True) == COUNTS
    assert counted(either, one_hot=False) == [12, 6]
    assert counted([[0.0, 2.0], [1.0, 1.0]], one_hot=False) == [1, 2, 1]
    assert counted([[0.0, 2.0], [1.0, 1.0]], one_hot=True) == [1, 3]
