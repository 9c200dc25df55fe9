"""The pages of docs/ and README that need PyTorch, scikit-learn or nothing; and that the index knows every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from .pages import DOCS, NEEDS, README, ROOT, Block, blocks, check, commands, pages, run, session

INDEX = ROOT / "docs" / "README.md"
QUESTIONS = [page for page in DOCS if page.name not in ("README.md", "parity.md")]


@pytest.mark.parametrize("page", [README, *pages("tests")], ids=lambda page: page.stem)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)


@pytest.mark.parametrize("page", QUESTIONS, ids=lambda page: page.stem)
def test_a_page_is_a_question_an_answer_and_code(page: Path) -> None:
    lines = page.read_text().splitlines()
    assert re.match(r"# .+\?$", lines[0])
    assert lines[1] == ""
    assert re.match(r"[A-Z`].*", lines[2])
    assert NEEDS.search(page.read_text())
    assert any(block.language == "python" for block in blocks(page))
    assert f"({page.name})" in INDEX.read_text()


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *DOCS], ids=lambda page: "/".join(page.parts[-2:]))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_each_session_has_pages() -> None:
    assert {session(page) for page in DOCS} == {"tests", "tensorflow", "chainer", "trainers"}
    assert any(block.language == "python" for block in blocks(README))


def test_the_workflow_runs_what_the_page_has_shown() -> None:
    page = ROOT / "docs" / "conformance-in-your-ci.md"
    (workflow,) = (yaml.safe_load(block.text) for block in blocks(page) if block.language == "yaml")
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    shown = [command for block in blocks(page) if block.language == "console" for _, command, _ in commands(block)]
    assert steps[-1]["run"] in shown


def test_a_page_that_prints_something_else_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nprint(6 * 7)  # 42\nprint('a')\n```\n\n```text\na\n```\n")
    run(page)
    page.write_text("# Page\n\n```python\nprint(6 * 7)  # 43\n```\n")
    with pytest.raises(AssertionError, match=r"page.md, line 4, says\n43\nbut prints\n42\n"):
        run(page)
    page.write_text("# Page\n\n```python\nprint(6 * 7)\n```\n")
    with pytest.raises(AssertionError, match="says\nbut prints\n42\n"):
        run(page)
    page.write_text("# Page\n\n```console\n$ python -c 'print(6 * 7)'\n4...\n```\n")
    run(page)


def test_a_console_block_has_several_commands() -> None:
    block = Block("console", None, "$ a b\n1\n2\n$ c\n", 10)
    assert list(commands(block)) == [(10, "a b", ["1", "2"]), (13, "c", [])]
    with pytest.raises(AssertionError):
        check(Path("page"), 1, ["a ... b"], "a b\n")
