"""The command line: ``classweight conformance``, ``compare``, ``identify``, ``weights``.

A subcommand's own modules are loaded when it is called.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .answers import commands as _cli_answers
from .spec import from_dict
from .streams import STANDARD_INPUT, check_folder, read, read_json, refused, say
from .weights import commands as _cli_weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status; 2 for arguments that cannot be used."""
    parser = argparse.ArgumentParser(prog="classweight", description="Weighted cross-entropy, proven identical.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('classweight')}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_conformance(commands)
    _cli_answers.add(commands)
    _cli_weights.add(commands)
    try:
        options = parser.parse_args(arguments)
        return int(options.run(options))
    finally:
        say(end="")  # so that what argparse printed is out


def _add_conformance(commands: Any) -> None:
    parser = commands.add_parser(
        "conformance",
        help="judge backends by the suite",
        description="Judge backends, or a loss of your own, by the suite: loss, gradient and errors, in ULPs.",
        epilog="Exit status: 0 if all passed; 1 if a case failed, or a known failure passed; 2 if it could not be run.",
    )
    parser.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help="torch, torch:composite, numpy; your.module:loss with --spec; any of them @/path/to/python; repeatable. "
        "Default: every backend importable here",
    )
    parser.add_argument(
        "--spec", type=Path, help="JSON of the spec (to_dict) that a loss of your own is judged by; - is standard input"
    )
    parser.add_argument("--framework", help="of a loss of your own, if its module does not show it")
    parser.add_argument(
        "--targets", choices=("index", "distribution"), default="index", help="what a softmax loss of your own takes"
    )
    parser.add_argument("--elements", type=int, default=200_000, help="logits of random sweeps in all (%(default)s)")
    parser.add_argument("--clause", action="append", metavar="PATTERN", help="only these clauses; repeatable")
    parser.add_argument("--case", action="append", metavar="PATTERN", help="only these cases; repeatable")
    parser.add_argument(
        "--xfails", type=Path, metavar="FILE", help="glob patterns of ids that are known to fail; - too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page to look at, what failed first")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as a page of Markdown")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for a case (%(default)s)")
    parser.set_defaults(run=_conformance)


def _conformance(options: argparse.Namespace) -> int:
    from .conformance import backends as known_backends
    from .conformance import own as own_cases
    from .conformance import page
    from .conformance.client import BackendError
    from .conformance.runner import KnownFailures, on_terminal, run

    own = [name for name in options.backend or () if name.partition("@")[0] not in known_backends.known()]
    try:
        if options.spec == options.xfails == STANDARD_INPUT:
            raise ValueError("--spec and --xfails must not both be -")
        spec = None if options.spec is None else from_dict(read_json(options.spec))
        if own and spec is None:
            raise ValueError(f"--spec must be given for {own[0]!r}, which is none of {known_backends.known()}")
        for name in ("json", "html", "markdown"):
            check_folder(f"--{name}", getattr(options, name))
        xfails = KnownFailures(read(options.xfails).decode().splitlines() if options.xfails else ())
    except (OSError, TypeError, ValueError) as problem:
        return refused("conformance", problem)

    def cases_of(hello: Any) -> list[Any]:
        cases = own_cases.cases_of(hello, spec, options.targets)
        return [case for case in cases if chosen(case.clause, options.clause) and chosen(case.id, options.case)]

    def chosen(name: str, patterns: list[str] | None) -> bool:
        return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)

    swept = spec is None and options.case is None and chosen("sweeps", options.clause)
    try:
        report = run(
            options.backend or known_backends.available(),
            cases_of,
            elements=options.elements if swept else 0,
            framework=options.framework,
            timeout=options.timeout,
            known=xfails,
            progress=on_terminal if sys.stderr.isatty() else None,
        )
    except (BackendError, ImportError, ValueError) as problem:
        return refused("conformance", problem)
    if not any(backend.outcomes or backend.sweeps for backend in report.backends):
        return refused("conformance", "no case has such a name")
    say(report.to_text())
    if options.json:
        options.json.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    if options.html:
        options.html.write_text(page.to_html(report), "utf-8")
    if options.markdown:
        options.markdown.write_text(page.to_markdown(report), "utf-8")
    return report.exit_status
