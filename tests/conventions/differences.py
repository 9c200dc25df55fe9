"""The named differences as tests: each framework's file shows every one of its own, and no other."""

from __future__ import annotations

from collections.abc import Callable

from classweight.conventions import DIFFERENCES

Check = Callable[[], None]


def named(difference: str) -> bool:
    """Assert that the table has this difference: only then may a comparison leave it out."""
    assert difference in {d.id for d in DIFFERENCES}, f"{difference!r} is not in DIFFERENCES"
    return True


class Shown:
    """The checks of one framework's differences, by id."""

    def __init__(self, framework: str) -> None:
        self.ids = [d.id for d in DIFFERENCES if d.framework == framework]
        self.checks: dict[str, Check] = {}

    def __call__(self, difference: str) -> Callable[[Check], Check]:
        """Register the check that native and ours both do what the table says."""
        assert difference in self.ids, f"{difference!r} is not in DIFFERENCES"
        assert difference not in self.checks, f"{difference!r} is shown twice"

        def register(check: Check) -> Check:
            self.checks[difference] = check
            return check

        return register
