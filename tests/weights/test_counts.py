"""ClassCounts: a stream counted in parts, wherever it is cut and in whatever order the parts come."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classweight import ClassCounts, class_weights

some_labels = st.lists(st.integers(0, 9), max_size=40) | st.lists(st.sampled_from(["ant", "bee", "cat"]), max_size=40)
# Sums of these are exact in any order.
some_weights = st.integers(0, 2**20).map(lambda i: i / 256)


@given(labels=some_labels, data=st.data())
def test_the_counts_are_pythons(labels: list[Any], data: st.DataObject) -> None:
    counts = ClassCounts().update(labels)
    expected = Counter(labels)
    found = counts.as_dict(names=bool(labels) and isinstance(labels[0], str))
    assert {key: n for key, n in found.items() if n} == dict(expected)
    assert counts.counts.dtype == np.int64
    assert counts.class_names == (tuple(sorted(expected)) if labels and isinstance(labels[0], str) else None)


@given(labels=some_labels, data=st.data())
def test_a_stream_may_be_cut_anywhere_and_the_parts_added_in_any_order(labels: list[Any], data: st.DataObject) -> None:
    s = data.draw(st.none() | st.lists(some_weights, min_size=len(labels), max_size=len(labels)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(labels)), max_size=4)))
    edges = list(zip([0, *cuts], [*cuts, len(labels)], strict=True))
    whole, streamed, parts = ClassCounts().update(labels, s), ClassCounts(), []
    for start, stop in edges:
        weight = None if s is None else s[start:stop]
        streamed.update(labels[start:stop], weight)
        parts.append(ClassCounts().update(labels[start:stop], weight))
    assert streamed == whole
    assert sum(parts) == whole
    assert sum(data.draw(st.permutations(parts)), ClassCounts()) == whole
    if len(parts) > 2:
        a, b, *rest = parts
        assert a + (b + sum(rest)) == (a + b) + sum(rest)


def test_a_sum_leaves_its_parts_alone() -> None:
    a, b = ClassCounts().update([0]), ClassCounts().update([1])
    assert (a + b).as_dict() == {0: 1, 1: 1}
    assert (a.as_dict(), b.as_dict()) == ({0: 1}, {0: 0, 1: 1})


@pytest.mark.parametrize(
    "counts",
    [
        ClassCounts(),
        ClassCounts(5).update([0, 3]),
        ClassCounts().update([0, 3], [0.1, 2.5]),
        ClassCounts().update(["b", "a"]),
        ClassCounts(class_names=["b", "a"]).update(["a", "a"]),
    ],
    ids=repr,
)
def test_counts_travel(counts: ClassCounts) -> None:
    for copy in (pickle.loads(pickle.dumps(counts)), ClassCounts.from_dict(json.loads(json.dumps(counts.to_dict())))):
        assert copy == counts
        assert copy.counts.dtype == counts.counts.dtype
        assert repr(copy) == repr(counts)
        assert copy + counts == counts + counts


def test_the_number_of_classes_is_known_or_grows() -> None:
    counts = ClassCounts()
    assert [counts.update([label]).num_classes for label in (0, 4, 2)] == [1, 5, 5]
    assert ClassCounts(3).update([0]).counts.tolist() == [1, 0, 0]
    assert (ClassCounts(3) + ClassCounts().update([1])).counts.tolist() == [0, 1, 0]
    assert ClassCounts().update([[0.0, 1, 0]], one_hot=True).num_classes == 3


def test_given_names_are_an_order_for_names_and_for_indices() -> None:
    counts = ClassCounts(class_names=["dog", "cat"]).update(["cat", "cat", "dog"]).update([0, 0, 0])
    assert counts.class_names == ("dog", "cat")
    assert counts.counts.tolist() == [4, 2]
    assert (counts + ClassCounts().update(["cat"])).counts.tolist() == [4, 3]
    assert (ClassCounts().update([1]) + counts).counts.tolist() == [4, 3]


def test_counts_of_others() -> None:
    assert ClassCounts.from_counts(Counter([0, 2, 2])).as_dict() == {0: 1, 1: 0, 2: 2}
    assert ClassCounts.from_counts({True: 3, False: 1}).as_dict() == {0: 1, 1: 3}
    assert ClassCounts.from_counts({np.int64(1): np.int32(5)}, 3).as_dict() == {0: 0, 1: 5, 2: 0}
    assert ClassCounts.from_counts(np.array([2.5, 1])).counts.tolist() == [2.5, 1]
    assert ClassCounts.from_counts({"b": 1, "a": 2}).as_dict(names=True) == {"a": 2, "b": 1}
    assert class_weights(Counter("aab")) == class_weights(list("aab"))


class Series:
    """What pandas's ``value_counts()`` is: keys in the order of frequency; iterating gives the values."""

    def __init__(self, **items: int) -> None:
        self._items = items

    def keys(self) -> list[str]:
        return list(self._items)

    def __getitem__(self, key: str) -> int:
        return self._items[key]

    def __iter__(self) -> Any:
        return iter(self._items.values())


def test_what_has_keys_is_counts_by_class() -> None:
    assert class_weights(counts=Series(b=3, a=1), scheme="inverse").as_dict(names=True) == {"a": 1, "b": 1 / 3}


@pytest.mark.parametrize(
    "arguments",
    [
        {"sample_weight": np.float32(0.5)},
        {},
        {"mask": np.ones(1 << 23, bool)},
    ],
    ids=["weighted", "plain", "masked"],
)
def test_counting_needs_constant_memory_however_large_a_batch_is(arguments: dict[str, Any]) -> None:
    """The peak stays below a part of the batch's own size, and of what it would be as int64."""
    labels = np.random.default_rng(0).integers(0, 100, 1 << 23, np.uint8)
    tracemalloc.start()
    try:
        counts = ClassCounts().update(labels, **arguments)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < labels.nbytes
    np.testing.assert_array_equal(counts.counts, np.bincount(labels) * arguments.get("sample_weight", 1))


REFUSALS: dict[str, tuple[str, Any]] = {
    "names-after-indices": (
        "`labels` must be all class indices or all class names; got names after indices",
        lambda: ClassCounts().update([0]).update(["a"]),
    ),
    "indices-after-names": (
        "got indices after names",
        lambda: ClassCounts().update(["a"]) + ClassCounts().update([0]),
    ),
    "name-that-is-not-given": (
        r"`labels` must be among the class names \('a', 'b'\); got 'c'",
        lambda: ClassCounts(class_names=["a", "b"]).update(["c"]),
    ),
    "number-without-names": (
        "`class_names` must be given with num_classes where the labels are names",
        lambda: ClassCounts(2).update(["a"]),
    ),
    "two-numbers": (
        "`num_classes` must be the same in both parts; got 2 and 3",
        lambda: ClassCounts(2) + ClassCounts(3),
    ),
    "two-orders": (
        "`class_names` must be the same in both parts",
        lambda: ClassCounts(class_names=["a", "b"]) + ClassCounts(class_names=["b", "a"]),
    ),
    "sum-beyond": (
        "`labels` must have class indices from 0 to 1; got 5",
        lambda: ClassCounts(2) + ClassCounts().update([5]),
    ),
    "distribution-of-another-length": (
        "`labels` must have 2 entries, one per class, along axis 1; got 3",
        lambda: ClassCounts(2).update(np.eye(3)[:2]),
    ),
    "version": ("`version` must be 1; got 7", lambda: ClassCounts.from_dict({**ClassCounts().to_dict(), "version": 7})),
    "stray-index": (
        "`counts` must have class indices from 0 to 16777215",
        lambda: ClassCounts.from_counts({10**12: 1}),
    ),
}


@pytest.mark.parametrize(("match", "call"), list(REFUSALS.values()), ids=list(REFUSALS))
def test_refusals(match: str, call: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_sum_with_anything_else_is_a_type_error() -> None:
    for other in (1, None, {0: 1}):
        with pytest.raises(TypeError):
            ClassCounts() + other  # type: ignore[operator]
        with pytest.raises(TypeError):
            other + ClassCounts()  # type: ignore[operator]


@pytest.mark.parametrize(
    "arguments", [([1, 7],), ([1, -1],), ([1], [-1.0]), ([1, 1], [1.0]), ([0.5],), (["a"],), ([1], None)]
)
def test_a_refused_batch_leaves_the_counts_as_they_were(arguments: Any) -> None:
    counts = ClassCounts(3).update([0, 2])
    options = {} if len(arguments) == 1 or arguments[1] is not None else {"mask": [1]}
    with pytest.raises((ValueError, TypeError)):
        counts.update(*arguments, **options)
    assert counts.as_dict() == {0: 1, 1: 0, 2: 1}
