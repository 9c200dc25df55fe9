"""The one place that words a refusal: the argument, what was expected, what came, where."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

__all__ = ["TargetIndexError"]

Function = TypeVar("Function", bound=Callable[..., Any])
# Of what came, in characters: whatever a file holds, a refusal fits on a screen.
LONGEST = 400


class TargetIndexError(ValueError, IndexError):
    """A class index outside ``[0, C)``: a ValueError for us, an IndexError for callers used to native losses."""


class _Names(threading.local):
    current: Mapping[str, str] = {}


_names = _Names()


def is_traced() -> bool:
    """Return whether a call becomes part of a graph that has no side effects; PyTorch's adapter puts its own here."""
    return False


def calling(**names: str) -> Callable[[Function], Function]:
    """Return a decorator of a function that has other names for these arguments: its errors say them.

    >>> @calling(targets="y")
    ... def fit(y):
    ...     refuse("targets", "be labels", y)
    >>> fit(None)
    Traceback (most recent call last):
        ...
    ValueError: `y` must be labels; got None
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def named(*args: Any, **kwargs: Any) -> Any:
            if is_traced():
                return function(*args, **kwargs)
            before = _names.current
            # What that function calls something, the one that called it may have another name for.
            said = {ours: before.get(theirs, theirs) for ours, theirs in names.items()} if before else names
            _names.current = {**before, **said}
            try:
                return function(*args, **kwargs)
            finally:
                _names.current = before

        return named  # type: ignore[return-value]

    return decorate


def name_of(argument: str) -> str:
    """Return what the function that the user called calls this argument."""
    return _names.current.get(argument, argument)


def refuse(argument: str, expected: str, got: object, where: str = "", error: type[Exception] = ValueError) -> NoReturn:
    """Raise ``error`` with the library's one sentence.

    >>> refuse("class_weight", "have shape (3,), one per class", (4,))
    Traceback (most recent call last):
        ...
    ValueError: `class_weight` must have shape (3,), one per class; got (4,)
    """
    came = " ".join(str(got).split("\n"))
    came = (came if len(came) <= LONGEST else f"{came[:LONGEST]}...") + (f" {where}" if where else "")
    raise error(f"`{name_of(argument)}` must {expected}; got {came}") from None


def missing_framework(module: str, extra: str, cause: Exception, versions: str = "") -> NoReturn:
    """Raise an ImportError that names the extra to install, and the versions that it needs where few will do."""
    name = cause.name if isinstance(cause, ImportError) else None
    needs = f"{extra} {versions}" if versions else name or extra
    message = f"classweight.adapters.{module} needs {needs}: pip install 'classweight[{extra}]' ({cause})"
    raise ImportError(message, name=name) from cause
