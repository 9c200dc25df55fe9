"""The distribution: what an import loads, what the wheel is made of, and that CI runs README."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"classweight": "classweight", "classweight.adapters": "adapters", "classweight.conformance": "conformance"}


# The command line is of the whole distribution, and Keras computes with the private half of its backend's own adapter.
ACROSS = {
    ("classweight.cli", "classweight.conformance"),
    ("classweight.adapters.keras", "classweight.adapters.tensorflow"),
    ("classweight.adapters.keras", "classweight.adapters.torch"),
    ("classweight.adapters.keras", "classweight.adapters.jax"),
}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules beyond the standard library that a statement loads in a new process."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()} - sys.stdlib_module_names


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("module", [".conventions", ".reference", ".answers.compare", ".weights", ".adapters.numpy"])
def test_the_core_and_the_numpy_adapter_load_numpy_alone(module: str) -> None:
    assert loaded_by(f"import classweight{module}") == {"classweight", "numpy"}


@pytest.mark.parametrize("package", ["classweight", "classweight.conformance"])
def test_public_names_are_imported_when_they_are_asked_for(package: str) -> None:
    assert loaded_by(f"import {package}") == {"classweight"}
    module = importlib.import_module(package)
    for name in module.__all__:
        found = getattr(module, name)
        assert name in dir(module)
        assert vars(module)[name] is found
        # Type checkers, and readers, are told the same.
        (home,) = re.findall(rf"^    from (\.[\w.]*) import .*\b{name}\b", Path(module.__file__).read_text(), re.M)
        assert found is getattr(importlib.import_module(home, package), name)
    assert {*dir(module)} >= {*module.__all__}
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018
    everything: dict[str, object] = {}
    exec(f"from {package} import *", everything)
    assert {*module.__all__} <= {*everything}


def test_pytest_starts_with_the_plugin_and_nothing_else_of_ours() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import classweight.conformance.plugin; "
        "print(*sorted(set(sys.modules) - before - sys.stdlib_module_names), 'numpy' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    ours = ["classweight", "classweight.conformance", "classweight.conformance.plugin", "classweight.lazy"]
    assert [name for name in run.stdout.split() if name in ours or not name.startswith("_pytest.")] == [*ours, "False"]


def test_the_torch_adapter_loads_torch() -> None:
    assert {"classweight", "numpy", "torch"} <= loaded_by("import classweight.adapters.torch")


def test_a_missing_framework_is_an_import_error_that_names_the_extra() -> None:
    code = "import sys; sys.modules['torch'] = None; import classweight.adapters.torch"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert re.search(r"^ImportError: .*classweight\[torch\]", run.stderr, re.MULTILINE)


def test_every_folder_of_python_is_a_package_that_ships() -> None:
    found = {
        ".".join((name, *path.parent.relative_to(ROOT / folder).parts))
        for name, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def sources() -> dict[str, str]:
    """Return the text of each module of the distribution; a package is its __init__."""
    return {
        ".".join((name, *path.relative_to(ROOT / folder).with_suffix("").parts)): path.read_text()
        for name, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py")
    }


def import_graph(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the modules among these that each imports anywhere: in functions and for type checkers, too."""
    names = {module.removesuffix(".__init__") for module in texts}

    def imported(module: str, text: str) -> Iterator[str]:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = module.rsplit(".", node.level)[0] if node.level else None
                base = ".".join(filter(None, (above, node.module)))
                yield from (f"{base}.{a.name}" if f"{base}.{a.name}" in names else base for a in node.names)

    return {module.removesuffix(".__init__"): names & {*imported(module, text)} for module, text in texts.items()}


def circle(graph: Mapping[str, Set[str]]) -> list[str]:
    """Return modules that import each other in a circle, if there are any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def crossings(graph: Mapping[str, Set[str]]) -> set[tuple[str, str]]:
    """Return what imports the adapters, or the conformance suite, from outside: from the core or another adapter."""

    def room(module: str) -> str:
        parts = module.split(".")
        return ".".join(parts[: 3 if parts[1:2] == ["adapters"] else 2])

    rooms = ("classweight.adapters", "classweight.conformance")
    pairs = {(a, room(b)) for a, imported in graph.items() for b in imported if b.startswith(rooms)}
    return {(a, b) for a, b in pairs if room(a) != b and not room(a).startswith("classweight.conformance")}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(import_graph(sources())) == []


def test_the_core_imports_no_adapter_and_no_suite_and_adapters_not_each_other() -> None:
    assert crossings(import_graph(sources())) == ACROSS


def test_imports_are_found_wherever_they_stand() -> None:
    texts = {
        "classweight.__init__": "from .a import x",
        "classweight.a": "if TYPE_CHECKING:\n    from .b import y",
        "classweight.b": "def f():\n    from . import a",
        "classweight.c": "import classweight.adapters.torch.route",
        "classweight.adapters.torch.__init__": "from ..chainer import z\nfrom . import route",
        "classweight.adapters.torch.route": "from ...conformance.judge import judge",
        "classweight.adapters.chainer": "from ..a import x",
        "classweight.conformance.judge": "from ..adapters import torch",
    }
    graph = import_graph(texts)
    assert set(circle(graph)) == {"classweight.a", "classweight.b"}
    assert crossings(graph) == {
        ("classweight.c", "classweight.adapters.torch"),
        ("classweight.adapters.torch", "classweight.adapters.chainer"),
        ("classweight.adapters.torch.route", "classweight.conformance"),
    }


def ci(folder: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    """Run .ci/run beside a README with one bash block a command."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    (folder / "README.md").write_text("".join(f"Text.\n\n```bash\n{command}\n```\n" for command in commands))
    return subprocess.run(["bash", folder / ".ci" / "run"], capture_output=True, text=True)


def test_ci_runs_each_bash_block_of_readme(tmp_path: Path) -> None:
    assert len(blocks("bash")) == 2
    run = ci(tmp_path, "echo $((6 * 7))", "pwd")
    assert run.returncode == 0
    assert "\n42\n" in run.stdout
    assert f"\n{tmp_path}\n" in run.stdout


def test_ci_fails_where_a_command_of_readme_fails(tmp_path: Path) -> None:
    run = ci(tmp_path, "false\ntrue", "echo $((6 * 7))")
    assert run.returncode != 0
    assert "\n42\n" not in run.stdout
