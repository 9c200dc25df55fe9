"""The distribution: what an import loads, what the wheel is made of, and that CI runs README."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"classweight": "classweight", "classweight.adapters": "adapters", "classweight.conformance": "conformance"}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules beyond the standard library that a statement loads in a new process."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()} - sys.stdlib_module_names


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("module", ["", ".conventions", ".reference", ".adapters", ".adapters.numpy"])
def test_the_core_and_the_numpy_adapter_load_numpy_alone(module: str) -> None:
    assert loaded_by(f"import classweight{module}") == {"classweight", "numpy"}


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
