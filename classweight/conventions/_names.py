"""Translate a framework's name of a reduction into the spec's."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import refuse
from ..spec import Reduction

__all__ = ["reduction_of"]


def reduction_of(native: object, names: Mapping[str | None, Reduction], argument: str = "reduction") -> Reduction:
    """Return the spec's reduction for a native name.

    Raises
    ------
    ValueError
        A name that the native call does not take.
    """
    if not isinstance(native, str | None) or native not in names:
        refuse(argument, f"be one of {', '.join(map(repr, names))}", repr(native))
    return names[native]
