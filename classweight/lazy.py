"""Packages whose names are imported when they are asked for: pytest starts with our plugin, and may not need more."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package.

    ``homes`` are the modules of its names; that of a module is ".".
    """
    module = sys.modules[package]

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        value = import_module(f".{name}", package) if home == "." else getattr(import_module(home, package), name)
        setattr(module, name, value)  # and is not asked for again
        return value

    return get, lambda: sorted({*vars(module), *homes})
