"""Pages of reference for mkdocs: the public names of each module, by their docstrings."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from classweight import DIFFERENCES

ROOT = Path(__file__).parents[1]
# Each page's modules, and the file that says what is public in them.
PAGES = {
    "classweight": {"classweight": "classweight/__init__.py"},
    "conventions": {
        f"classweight.conventions.{path.stem}": str(path.relative_to(ROOT))
        for path in sorted((ROOT / "classweight" / "conventions").glob("[a-z]*.py"))
    },
    "adapters": {
        f"classweight.adapters.{name}": path
        for name, path in (
            ("numpy", "adapters/numpy.py"),
            ("torch", "adapters/torch/__init__.py"),
            ("torch.distributed", "adapters/torch/distributed.py"),
            ("tensorflow", "adapters/tensorflow/__init__.py"),
            ("keras", "adapters/keras/__init__.py"),
            ("jax", "adapters/jax/__init__.py"),
            ("chainer", "adapters/chainer/__init__.py"),
            ("cupy", "adapters/cupy.py"),
        )
    },
    "conformance": {"classweight.conformance": "conformance/__init__.py"},
}


def public(file: Path) -> list[str]:
    """Return the names in a module's ``__all__``."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise ValueError(f"{file} has no __all__")


def page(title: str, modules: dict[str, str]) -> str:
    """Return a page of Markdown with one directive a public name; sub-modules have pages of their own."""
    parts = [f"# {title}"]
    for module, file in modules.items():
        names = [name for name in public(ROOT / file) if name not in ("conventions", "DIFFERENCES")]
        parts += [f"## `{module}`"] if len(modules) > 1 else []
        parts += [f"::: {module}.{name}\n    options:\n      heading_level: {2 + (len(modules) > 1)}" for name in names]
    return "\n\n".join(parts) + "\n"


def differences() -> str:
    """Return the table of the cases in which a native call and ours part ways."""
    rows = ["# Where native and ours differ", "| call | case | native | ours |\n|---|---|---|---|"]
    for d in DIFFERENCES:
        cells = (f"{d.framework}: {d.call}", d.case, d.native, d.ours)
        rows[-1] += "\n| " + " | ".join(cell.replace("|", "\\|").replace("*", "\\*") for cell in cells) + " |"
    return "\n\n".join(rows) + "\n"


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages."""
    for name, modules in PAGES.items():
        title = f"Reference: {name}" if name != "classweight" else "Reference"
        files.append(File.generated(config, f"reference/{name}.md", content=page(title, modules)))
    files.append(File.generated(config, "reference/differences.md", content=differences()))
    return files
