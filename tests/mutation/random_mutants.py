"""Random mutants of the code that computes, judged by the suite: what it catches, and what it does not.

``python tests/mutation/random_mutants.py --backend numpy --count 20 FILE...`` runs in one framework's environment; each
mutant is one change of one expression, in a process of its own that imports the library anew. `page` makes a table of
the results.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.util
import json
import linecache
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# Compiled kernels, which a process need not compile anew unless they are what is changed.
KERNELS = "classweight.compute.cpu_kernels"
FRAMEWORKS = ("torch", "chainer", "tensorflow", "jax", "keras")
# Triton decides when it is imported.
INTERPRETED = "torch:interpreted"
# For as long as the process lives.
ENTERED = ExitStack()
SKIPPED = {"refuse", "ImportError", "ValueError", "TypeError", "lru_cache", "TypeVar", "cast"}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
LOGIC = {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And}
ORDER = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
ORDER |= {ast.Is: ast.IsNot, ast.IsNot: ast.Is}
OTHER = {"log1p": "log", "expm1": "exp", "argmax": "argmin", "any": "all", "max": "min", "min": "max"}
Change = Callable[[], None]


class Site:
    """One change: where, of what, into what."""

    def __init__(self, node: ast.AST, owner: str, change: Change) -> None:
        self.node, self.owner, self.change = node, owner, change
        self.line: int = node.lineno  # type: ignore[attr-defined]
        self.before = ast.unparse(node)
        self.after = ""

    def apply(self) -> None:
        """Change the tree."""
        self.change()
        self.after = ast.unparse(self.node)


def sites(tree: ast.Module) -> list[Site]:
    """Return every change that can be made to a file's functions."""
    return list(_sites(tree, ""))


def _sites(node: ast.AST, owner: str) -> Iterator[Site]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.Import | ast.ImportFrom):
                continue
            if isinstance(child, ast.Call) and _called(child) in SKIPPED:
                continue
            named = isinstance(child, ast.FunctionDef | ast.ClassDef)
            own = f"{owner}.{child.name}".lstrip(".") if named else owner  # type: ignore[attr-defined]
            if owner:
                yield from (Site(child, owner, change) for change in _changes(child))
            yield from _sites(child, own)


def _called(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def _changes(node: ast.AST) -> Iterator[Change]:
    def put(name: str, value: Any) -> Change:
        return lambda: setattr(node, name, value)

    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        other = (ARITHMETIC | LOGIC).get(type(node.op))  # type: ignore[arg-type]
        if other:
            yield put("op", other())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in ORDER:
        yield put("ops", [ORDER[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert | ast.USub):
        is_not = isinstance(node.op, ast.Not)
        yield (
            put("operand", ast.UnaryOp(node.op, node.operand))
            if not is_not
            else put("operand", ast.UnaryOp(ast.Not(), node.operand))
        )
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield put("value", not node.value)
        elif isinstance(node.value, int):
            yield put("value", node.value + 1)
        elif isinstance(node.value, float):
            yield put("value", node.value * 2 if node.value else 1.0)
    elif isinstance(node, ast.If | ast.While):
        yield put("test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.IfExp):
        body, orelse = node.body, node.orelse

        def swap() -> None:
            node.body, node.orelse = orelse, body

        yield swap
    elif isinstance(node, ast.Call):
        name = _called(node)
        if name in ("where", "_where", "select") and len(node.args) == 3:
            yield put("args", [node.args[0], node.args[2], node.args[1]])
        elif name in OTHER and isinstance(node.func, ast.Attribute):
            function = node.func
            yield lambda: setattr(function, "attr", OTHER[name])
        elif name == "abs" or name == "detach":
            yield put("func", ast.parse("(lambda x: x)", mode="eval").body)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield put("value", ast.Constant(None))


def mutated(path: Path, number: int) -> tuple[ast.Module, Site]:
    """Return a file's tree with its change of that number."""
    tree = ast.parse(path.read_text())
    site = sites(tree)[number]
    site.apply()
    return ast.fix_missing_locations(tree), site


class Finder(importlib.abc.MetaPathFinder):
    """Finds one module changed; as text, too, which Triton reads."""

    def __init__(self, module: str, tree: ast.Module, path: Path) -> None:
        self.module, self.path, self.used, self.text = module, path, False, ast.unparse(tree)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the module's own spec, whose loader compiles the changed tree."""
        if name != self.module:
            return None
        self.used = True
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        code = compile(self.text, str(self.path), "exec")
        linecache.cache[str(self.path)] = (len(self.text), None, self.text.splitlines(True), str(self.path))
        spec.loader.get_code = lambda _: code  # type: ignore[attr-defined]
        return spec


def forget(kept: Sequence[str]) -> None:
    """Forget the library, so that it is imported anew."""
    for name in [name for name in sys.modules if name.split(".")[0] == "classweight" and name not in kept]:
        del sys.modules[name]


def suite(part: int | None, elements: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield what judges, and the request: so many of the vectors in an order that catches soon, then the sweeps."""
    from classweight.conformance import sweeps
    from classweight.conformance.cases import load

    cases = [case for case in load() if case.tier == "required"]
    random.Random(0).shuffle(cases)
    # First one of each kind.
    earlier: Counter[Any] = Counter()
    rank = {}
    for case in cases:
        kind = case.clause, case.flags
        rank[case.id] = earlier[kind]
        earlier[kind] += 1
    for case in sorted(cases, key=lambda case: rank[case.id])[:part]:
        yield case, case.request()
    for sweep in sweeps.plan(elements):
        for case in sweeps.cases(sweep):
            yield case, case.request()


def made_backend(name: str) -> Any:
    """Return a backend of the suite, or one that stands for what is not here.

    ``array-api`` has the arrays of a library that has what the array API standard has and no more;
    ``torch:interpreted`` and ``cupy:emulated`` have kernels of GPUs on the CPU.
    """
    from classweight.conformance.backends import Backend, NotRun, NumPy, make_backend

    if name == INTERPRETED:
        return _from_file("interpreted.py").backend()
    if name == "cupy:emulated":
        made = _from_file("adapters/emulated_cuda.py").emulated_backend(Path(tempfile.mkdtemp()))
        return ENTERED.enter_context(made)
    if name != "array-api":
        return make_backend(name)
    import array_api_strict

    from classweight.call import prepare
    from classweight.compute import closed_form
    from classweight.compute.arrays import ArrayFunctions

    strict = ArrayFunctions(array_api_strict)

    class Strict(NumPy):
        def decode(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
            if dtype.endswith("float16"):
                raise NotRun("the standard has no half types")
            return array_api_strict.asarray(super().decode(data, dtype, shape))

        def lay(self, x: Any, layout: str) -> Any:
            return x

    def loss(spec: Any, logits: Any, targets: Any, upstream: Any = None, validate: Any = None, **arguments: Any) -> Any:
        call = prepare(strict, spec, logits, targets, **arguments, check_values=validate is not False)
        return closed_form.loss_and_grad(strict, call, upstream)

    glue = Strict("")
    glue.loss = loss
    return Backend(name, glue, {})


def _from_file(name: str) -> Any:
    """Return a module of the tests, imported anew."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, HERE.parent / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judged(backend: str, cases: Sequence[Any], judge: Any) -> str | None:
    """Return the first failure of the library as it is imported now."""
    from classweight.conformance.worker import answer

    try:
        made = made_backend(backend)
        for case, request in cases:
            with np.errstate(all="ignore"):
                reply = answer(made, request)
            if "not_run" not in reply:
                for verdict in judge(case, reply):
                    if verdict.failures:
                        return str(verdict.failures[0])
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
    return None


def reached(backend: str, cases: Sequence[Any], judge: Any, paths: Sequence[Path]) -> dict[str, list[int]]:
    """Return the lines of the files that the suite runs through."""
    # An installation has files of its own.
    specs = [importlib.util.find_spec(module_of(path)) for path in paths]
    found: dict[str, set[int]] = {os.path.realpath(str(spec and spec.origin)): set() for spec in specs}
    ours = dict(zip(found, map(str, paths), strict=True))

    @cache
    def lines_of(file: str) -> set[int] | None:
        return found.get(os.path.realpath(file))

    def trace(frame: Any, event: str, argument: Any) -> Any:
        lines = lines_of(frame.f_code.co_filename)
        if lines is None:
            return None

        def of_lines(frame: Any, event: str, argument: Any) -> Any:
            lines.add(frame.f_lineno)
            return of_lines

        lines.add(frame.f_lineno)
        return of_lines

    sys.settrace(trace)
    try:
        failure = judged(backend, cases, judge)
    finally:
        sys.settrace(None)
    assert failure is None, failure
    return {ours[path]: sorted(lines) for path, lines in found.items()}


def apart(function: Callable[[], Any], seconds: int) -> Any:
    """Return what a function returns in a process of its own, "it hung" or how it ended.

    Seconds are those of a processor, of which a busy machine may give few: one that waits has ten times as long.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        theirs.send(function())
        os._exit(0)

    process = context.Process(target=run)
    process.start()
    theirs.close()
    try:
        if not ours.poll(10 * seconds):
            return "it hung"
        return ours.recv()
    except EOFError:
        process.join()
        status = process.exitcode
        return "it hung" if status == -signal.SIGXCPU else f"it ended with status {status}"
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()


def module_of(path: Path) -> str:
    """Return the name of a file's module in an installation."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "classweight" else ("classweight", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def main() -> int:
    """Judge mutants, print a line for each, and write them to a file of JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", action="append", required=True)
    parser.add_argument("--count", type=int, default=20, help="mutants a file")
    parser.add_argument("--left", type=Path, nargs="*", help="results: of their mutants, those that were not killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=int, help="vectors, where each takes long; default: all")
    parser.add_argument("--elements", type=int, default=20_000, help="of the sweeps")
    parser.add_argument("--seconds", type=int, default=600, help="of a processor, for a mutant")
    parser.add_argument("--no-compiler", action="store_true", help="hide Numba: what arrays compute is judged")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.no_compiler:
        sys.modules["numba"] = None  # type: ignore[assignment]
    if INTERPRETED in options.backend:
        os.environ["TRITON_INTERPRET"] = "1"
        importlib.import_module("triton")
    for backend in options.backend:
        name, _, variant = backend.partition(":")
        if name == "keras":
            os.environ["KERAS_BACKEND"] = variant
        for each in {name, variant} & set(FRAMEWORKS):
            importlib.import_module(each)
    paths = [path.resolve() for path in options.files]

    from classweight.conformance.judge import judge

    cases = list(suite(options.part, options.elements))
    kept = []
    if not options.no_compiler and any(
        backend.partition(":")[0] in ("numpy", "torch", "chainer") for backend in options.backend
    ):
        assert judged("numpy", cases, judge) is None  # compiles the kernels, once for all
        kept = [KERNELS, "classweight.compute"]
    known = _lines([options.out])
    left = _lines(options.left or ())

    @lru_cache
    def lines_of(backend: str) -> dict[str, list[int]]:
        """Return the lines that are run through; asked for mutants that survive."""

        def found() -> Any:
            forget([KERNELS] if KERNELS in kept else [])
            return reached(backend, cases, judge, paths)

        lines: dict[str, list[int]] = apart(found, options.seconds)
        return lines

    with options.out.open("a") as out:
        for path in paths:
            found = sites(ast.parse(path.read_text()))
            chosen = random.Random(f"{options.seed}{path.name}").sample(range(len(found)), len(found))
            for number in sorted(chosen if options.left else chosen[: options.count]):
                tree, site = mutated(path, number)
                file = str(path.relative_to(ROOT))
                change = (file, site.owner, site.line, site.before, site.after)
                if change in known or (options.left and left.get(change, "killed") == "killed"):
                    continue
                started, failure, by = time.monotonic(), None, ""
                is_kernel = module_of(path) == KERNELS
                for backend in options.backend:

                    def one(backend: str = backend, tree: Any = tree, path: Path = path) -> str | None:
                        forget([KERNELS] if KERNELS in kept and module_of(path) != KERNELS else [])
                        if module_of(path) == KERNELS:  # what is kept on disk is of the code as it is
                            importlib.import_module("numba").config.CACHE_DIR = tempfile.mkdtemp()
                        sys.meta_path.insert(0, Finder(module_of(path), tree, path))
                        return judged(backend, cases, judge)

                    failure = apart(one, options.seconds)
                    if failure:
                        by = backend
                        break
                through = failure or is_kernel
                through = through or any(_runs(site.node, lines_of(name)[str(path)]) for name in options.backend)
                result = "killed" if failure else "survived" if through else "unreached"
                record = {
                    "file": file,
                    "function": site.owner,
                    "line": site.line,
                    "before": site.before,
                    "after": site.after,
                    "result": result,
                    "by": by,
                    "why": str(failure)[:200] if failure else "",
                    "seconds": round(time.monotonic() - started, 1),
                }
                out.write(json.dumps(record) + "\n")
                out.flush()
                print(result, file, site.line, f"{site.before[:60]!r} -> {site.after[:60]!r}", by, flush=True)
    counted = Counter(json.loads(line)["result"] for line in options.out.read_text().splitlines())
    print(dict(counted))
    return 0


def _lines(results: Sequence[Path]) -> dict[tuple[Any, ...], str]:
    """Return what became of each change."""
    lines = [json.loads(line) for path in results if path.exists() for line in path.read_text().splitlines()]
    names = ("file", "function", "line", "before", "after")
    found: dict[tuple[Any, ...], str] = {}
    for line in lines:
        change = tuple(line[name] for name in names)
        found[change] = "killed" if "killed" in (line["result"], found.get(change)) else line["result"]
    return found


def _runs(node: ast.AST, lines: Sequence[int]) -> bool:
    """Whether any line of an expression is run through."""
    first, last = node.lineno, node.end_lineno or node.lineno  # type: ignore[attr-defined]
    if isinstance(node, ast.If | ast.While):
        last = node.test.end_lineno or first
    return any(first <= line <= last for line in lines)


if __name__ == "__main__":
    sys.exit(main())
