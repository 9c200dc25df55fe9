"""The one place that words a refusal: the argument, what was expected, what came, where."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["TargetIndexError"]


class TargetIndexError(ValueError, IndexError):
    """A class index outside ``[0, C)``: a ValueError for us, an IndexError for callers used to native losses."""


def refuse(argument: str, expected: str, got: object, where: str = "", error: type[Exception] = ValueError) -> NoReturn:
    """Raise ``error`` with the library's one sentence.

    >>> refuse("class_weight", "have shape (3,), one per class", (4,))
    Traceback (most recent call last):
        ...
    ValueError: `class_weight` must have shape (3,), one per class; got (4,)
    """
    raise error(f"`{argument}` must {expected}; got {got}{' ' + where if where else ''}") from None


def missing_framework(module: str, extra: str, cause: Exception, versions: str = "") -> NoReturn:
    """Raise an ImportError that names the extra to install, and the versions that it needs where few will do."""
    name = cause.name if isinstance(cause, ImportError) else None
    needs = f"{extra} {versions}" if versions else name or extra
    message = f"classweight.adapters.{module} needs {needs}: pip install 'classweight[{extra}]' ({cause})"
    raise ImportError(message, name=name) from cause
