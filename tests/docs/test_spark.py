"""The example on Spark runs."""

from __future__ import annotations

from ..examples import assert_counts, printed_by


def test_counts() -> None:
    assert_counts(printed_by("counts_spark"))
