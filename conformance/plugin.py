"""The suite in pytest: ``pytest --classweight-backend package.module:loss --classweight-spec spec.json``.

One item a case. Each backend runs in a worker process, so that no framework is imported here, each backend of Keras has
its own, and a crash costs its case. Without the option nothing is loaded but this file, not even NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .cases import Case
    from .client import Worker


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, in a group of their own."""
    group = parser.getgroup("classweight", "losses judged by classweight's conformance suite")
    group.addoption(
        "--classweight-backend",
        action="append",
        metavar="NAME",
        help="package.module:loss with --classweight-spec, or an adapter such as torch or keras:torch; any of them "
        "@/path/to/python; repeatable",
    )
    group.addoption("--classweight-spec", metavar="FILE", help="JSON of the spec (to_dict) that a loss is judged by")
    group.addoption("--classweight-framework", metavar="NAME", help="of a loss whose module does not show it")
    group.addoption(
        "--classweight-targets",
        choices=("index", "distribution"),
        default="index",
        help="what a softmax loss takes (%(default)s)",
    )
    group.addoption(
        "--classweight-xfails", metavar="FILE", help="glob patterns of cases that are known to fail, and then must"
    )
    group.addoption("--classweight-clause", action="append", metavar="PATTERN", help="only these clauses; repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Load the suite if a backend is asked for."""
    if config.getoption("classweight_backend"):
        config.pluginmanager.register(_Suite(config), "classweight-suite")


class _Suite:
    """What the options ask for, and the workers of a session."""

    def __init__(self, config: pytest.Config) -> None:
        from classweight.spec import from_dict
        from classweight.streams import parse_json

        from .backends import known
        from .runner import KnownFailures

        self.config, self.workers, option = config, ExitStack(), config.getoption
        own = [name for name in option("classweight_backend") if name.partition("@")[0] not in known()]
        spec, xfails = option("classweight_spec"), option("classweight_xfails")
        if own and not spec:
            raise pytest.UsageError(f"--classweight-spec must be given for {own[0]!r}, which is none of {known()}")
        self.known = KnownFailures(_read(xfails, "--classweight-xfails").splitlines() if xfails else ())
        try:
            self.spec = from_dict(parse_json(_read(spec, "--classweight-spec"))) if spec else None
        except (TypeError, ValueError) as problem:
            raise pytest.UsageError(f"--classweight-spec {spec}: {problem}") from None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add a test for each case, before -k and the like choose among all."""
        collector = Conformance.from_parent(session, name="classweight", nodeid="classweight", suite=self)
        items += session.genitems(collector)

    def pytest_sessionfinish(self) -> None:
        """End the workers."""
        self.workers.close()

    def start(self, name: str) -> Worker:
        """Return the worker of a backend, which finds modules where pytest does."""
        from .client import Worker

        framework, path = self.config.getoption("classweight_framework"), self.config.getini("pythonpath")
        return self.workers.enter_context(Worker(name, framework=framework, path=[str(folder) for folder in path]))

    def cases(self, hello: Mapping[str, Any]) -> Iterator[Case]:
        """Yield the cases for a worker that says hello."""
        from .own import cases_of

        targets, clauses = (self.config.getoption(f"classweight_{name}") for name in ("targets", "clause"))
        for case in cases_of(hello, self.spec, targets):
            if not clauses or any(fnmatchcase(case.clause, pattern) for pattern in clauses):
                yield case


def _read(file: str, option: str) -> str:
    from classweight.streams import read

    try:
        return read(Path(file)).decode()
    except (OSError, ValueError) as problem:
        raise pytest.UsageError(f"{option}: {problem}") from None


class Conformance(pytest.Collector):
    """The suite, as what stands before the ``::`` in the ids of its tests."""

    def __init__(self, *, suite: _Suite, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.suite = suite

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a test for each case of each backend.

        Raises
        ------
        CollectError
            A backend cannot be started.
        """
        from .client import BackendError

        xfail = pytest.mark.xfail(strict=True, raises=Nonconforming, reason="a known failure")
        for backend in self.config.getoption("classweight_backend"):
            try:
                worker = self.suite.start(backend)
            except BackendError as problem:
                raise self.CollectError(f"--classweight-backend {problem}") from None
            label = backend.partition("@")[0]  # another machine has the interpreter elsewhere
            for case in self.suite.cases(worker.hello):
                name = f"{label}[{case.id}]"
                # As text, which pytest reads as it does when --lf brings it back.
                nodeid = f"{self.nodeid}::{name}"
                item = ConformanceCase.from_parent(self, name=name, nodeid=nodeid, worker=worker, case=case)
                if self.suite.known.match(label, case.id):
                    item.add_marker(xfail)
                yield item


class Nonconforming(Exception):
    """A case failed; the text explains it."""


class ConformanceCase(pytest.Item):
    """One case on one backend."""

    def __init__(self, *, worker: Worker, case: Case, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.worker, self.case = worker, case

    def runtest(self) -> None:
        """Ask the worker and judge its reply.

        Raises
        ------
        Nonconforming
            It is not what the definition says.
        """
        from .explain import explain
        from .judge import judge

        reply = self.worker.ask(self.case.request())
        if "not_run" in reply:
            pytest.skip(str(reply["not_run"]))
        verdicts = judge(self.case, reply)
        if any(verdict.failures for verdict in verdicts):
            if self.case.tier == "optional":
                pytest.xfail("optional")
            raise Nonconforming(explain(self.case, reply, verdicts))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the explanation, which needs no traceback."""
        return str(excinfo.value) if isinstance(excinfo.value, Nonconforming) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        """Return what pytest shows as the place: the id, for there is no file."""
        return "classweight", None, self.name
