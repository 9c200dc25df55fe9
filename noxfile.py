"""The project's checks. ``nox`` runs all of them, on the built wheel and never on the tree."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nox

ROOT = Path(__file__).parent
DIST = ROOT / ".nox" / "dist"
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
# Frameworks with an environment of their own. Tests are chosen by the name of their file, not by what can be imported:
# a framework that a session asks for and cannot import is an error.
ELSEWHERE = ("tensorflow", "keras", "chainer", "jax", "optax", "flax")
# What each framework's own functions gave, for `parity` to hold every adapter against.
RECORDS = ROOT / ".nox" / "records"
# Which session's environment a backend lives in, and whose own functions are recorded there. The slow ones last.
PARITY = {
    "tests": (("numpy", "torch", "torch:composite"), ("torch", "sklearn", "onnx")),
    "chainer": (("chainer", "chainer:composite"), ("chainer",)),
    "tensorflow": (
        ("tensorflow", "keras:tensorflow", "keras:torch", "tensorflow:graph", "jax", "keras:jax", "tensorflow:xla"),
        ("tensorflow", "keras", "optax", "flax"),
    ),
}
# Which session's environment mutants of these files are judged in, on which backends, and how many of each file: all
# that others have left where that is None. Where each case is compiled anew, a part of the suite judges.
SLOW = ("--part", "125", "--elements", "1")
MUTANTS: dict[str, list[tuple[tuple[str, ...], int | None, tuple[str, ...]]]] = {
    "tests": [
        (
            ("--no-compiler", "--backend", "numpy", "--backend", "array-api"),
            110,
            ("classweight/compute/closed_form.py", "classweight/lowering.py", "classweight/compute/arrays.py"),
        ),
        (
            ("--backend", "numpy", "--backend", "torch"),
            25,
            ("classweight/compute/cpu.py", "adapters/torch/cpu.py", "adapters/numpy.py"),
        ),
        (
            ("--no-compiler", "--backend", "torch:composite"),
            40,
            ("classweight/compute/composite.py", "adapters/torch/arrays.py", "adapters/torch/route.py"),
        ),
        (("--backend", "torch"), None, ("adapters/torch/route.py",)),
        (
            ("--backend", "torch:linear"),
            20,
            (
                *("adapters/torch/chunks.py", "adapters/torch/linear.py"),
                *("adapters/torch/products.py", "adapters/torch/tensor_rows.py"),
            ),
        ),
        (("--backend", "numpy"), 60, ("classweight/compute/cpu_kernels.py",)),
        (("--backend", "torch:compiled", *SLOW), 8, ("adapters/torch/operators.py",)),
        # Kernels of GPUs, run on the CPU.
        (
            ("--backend", "torch:interpreted", "--seconds", "200"),
            15,
            (
                *("adapters/torch/gpu.py", "adapters/torch/triton_launch.py"),
                *("adapters/torch/triton_kernels.py", "adapters/torch/triton_numbers.py"),
            ),
        ),
        (("--no-compiler", "--backend", "cupy:emulated"), 8, ("adapters/cupy.py",)),
        (
            ("--backend", "torch:composite", "--backend", "torch", "--backend", "torch:linear"),
            None,
            ("classweight/lowering.py",),
        ),
    ],
    "chainer": [
        (
            ("--backend", "chainer", "--backend", "chainer:composite"),
            20,
            ("adapters/chainer/route.py", "adapters/chainer/__init__.py"),
        ),
    ],
    "tensorflow": [
        (
            ("--backend", "tensorflow", "--backend", "tensorflow:graph", *SLOW),
            8,
            ("adapters/tensorflow/arrays.py", "adapters/tensorflow/operation.py", "adapters/tensorflow/route.py"),
        ),
        (("--backend", "jax", *SLOW), 12, ("classweight/compute/xla.py",)),
        (
            ("--backend", "jax", *SLOW),
            6,
            ("adapters/jax/arrays.py", "adapters/jax/operation.py", "adapters/jax/route.py"),
        ),
        (("--backend", "keras:torch", "--backend", "keras:tensorflow", *SLOW), 10, ("adapters/keras/__init__.py",)),
    ],
}
KERAS_BACKENDS = ("tensorflow", "torch", "jax")
# These compile for every shape anew, for longer than they compute.
COMPILED = ("tensorflow:graph", "tensorflow:xla", "keras:jax", "jax")
# Which session's environment a backend of the benchmark lives in.
BENCHMARK = {
    "tests": ("numpy", "torch", "torch:vs-compile", "torch:compile"),
    "tensorflow": (
        *("tensorflow", "tensorflow:function", "keras:tensorflow", "keras:tensorflow:function"),
        *("keras:torch", "keras:jax", "jax"),
    ),
    "chainer": ("chainer",),
}
# What runs with the lowest versions: extras, the suite, tests, and which of these need what is not installed there.
LOWEST = {
    "torch": ("torch conformance", "--backend numpy --backend torch", ["tests/weights/test_torch.py"], ""),
    "tensorflow": (
        "tensorflow keras conformance",
        "--backend tensorflow --backend keras:tensorflow",
        ["tests/adapters/test_keras.py", "tests/weights/test_tensorflow.py", "tests/weights/test_keras.py"],
        "not keras_2 and not DataLoader",
    ),
    # It compiles for every shape anew.
    "jax": (
        "jax conformance",
        "--backend jax --clause axis --clause reduction --clause weighting",
        ["tests/weights/test_jax.py"],
        "",
    ),
}

# Which session's environment an adapter is soaked in.
SOAK = {
    "tests": ("numpy", "torch"),
    "chainer": ("chainer",),
    "tensorflow": ("tensorflow", "jax", "keras:tensorflow", "keras:torch", "keras:jax"),
}

nox.options.default_venv_backend = "virtualenv"  # uv knows other variables than pip
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["package", "core", "lint", "docs", "tests", "tensorflow", "chainer", "trainers"]


def constrain(session: nox.Session, environment: str) -> None:
    """Hold every installation of the session to the tested versions."""
    file = str(ROOT / "constraints" / f"{environment}.txt")
    # Variables, for no option reaches the build of an sdist, and Chainer's needs an old setuptools.
    session.env.update(PIP_CONSTRAINT=file, PIP_BUILD_CONSTRAINT=file)


def groups(*names: str) -> tuple[str, ...]:
    """Return the requirements of pyproject's dependency groups."""
    return nox.project.dependency_groups(PROJECT, *names)


def install(session: nox.Session, environment: str, extras: str, *requirements: str) -> None:
    """Install the wheel that the session `package` built, with its extras, and what else the session needs."""
    constrain(session, environment)
    wheel = next(DIST.glob("*.whl"))
    session.install(f"{wheel}{extras}", *requirements)
    # Environments are reused, and the version does not change with the code.
    session.install("--force-reinstall", "--no-deps", str(wheel))
    session.env["PYTHONSAFEPATH"] = "1"  # ./classweight lacks its adapters


def environments(session: nox.Session, sessions: Iterable[str]) -> dict[str, str]:
    """Bring the environments of these sessions up to date, and return their interpreters."""

    def install_only(name: str, **variables: str) -> None:
        session.run(sys.executable, "-m", "nox", "--install-only", "-s", name, env=variables, silent=True)

    install_only("package")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda name: install_only(name, CLASSWEIGHT_PACKAGED="1"), sessions))
    session.env["PYTHONSAFEPATH"] = "1"
    return {name: str(ROOT / ".nox" / name / "bin" / "python") for name in sessions}


def files(*frameworks: str, folder: str = "**") -> list[str]:
    """Return the test files of these frameworks."""
    return [str(path) for framework in frameworks for path in sorted(ROOT.glob(f"tests/{folder}/test_{framework}.py"))]


def pytest(session: nox.Session, *arguments: str, **variables: str) -> None:
    variables["CLASSWEIGHT_RECORD"] = str(RECORDS)
    # Each process takes a framework's memory.
    side_by_side = ("-n", "logical", "--maxprocesses", "8", "--dist", "worksteal")
    session.run("python", "-m", "pytest", *side_by_side, *arguments, *session.posargs, env=variables)


@nox.session
def package(session: nox.Session) -> None:
    """Build the sdist, and the wheel from the sdist; look into the wheel."""
    if "CLASSWEIGHT_PACKAGED" in os.environ:  # by `environments`, for sessions that are prepared side by side
        return
    constrain(session, "torch")
    session.install(*groups("package"))
    for folder in (DIST, RECORDS):
        shutil.rmtree(folder, ignore_errors=True)
    # `nox --install-only` builds it too.
    session.run_install("python", "-m", "build", "--outdir", str(DIST), silent=True)
    session.run("check-wheel-contents", str(DIST))


@nox.session(requires=["package"])
def core(session: nox.Session) -> None:
    """Run the suite where there is nothing but NumPy, the oldest that is supported."""
    install(session, "core", "")
    session.run("python", "-m", "classweight", "conformance", "--backend", "numpy")


@nox.session(requires=["package"])
def lint(session: nox.Session) -> None:
    """Check style, format and types."""
    install(session, "torch", "[torch,conformance,plot,fast]", *groups("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    # At the root mypy would find ./classweight, and silently check that alone.
    session.chdir(session.create_tmp())
    session.run("mypy", "--config-file", str(ROOT / "pyproject.toml"), "--package", "classweight")
    scripts = [str(path) for folder in ("examples", "docs") for path in sorted((ROOT / folder).glob("*.py"))]
    session.run("mypy", "--config-file", str(ROOT / "pyproject.toml"), *scripts)
    session.chdir(ROOT)
    session.run("basedpyright", "--pythonpath", str(Path(session.bin) / "python"))


@nox.session(requires=["package"])
def docs(session: nox.Session) -> None:
    """Build the site of docs/ and of the docstrings, every link followed, into .nox/site."""
    install(session, "docs", "", *groups("docs"))
    session.run("mkdocs", "build", "--strict")  # --quiet would let all links pass


@nox.session(requires=["package"])
def tests(session: nox.Session) -> None:
    """Test the core, NumPy and PyTorch: tests, doctests, README and the example; then the vectors and the suite."""
    install(session, "torch", "[torch,conformance,plot,fast]", *groups("tests"))
    here = ("__init__", "__pycache__", "numpy", "torch")
    others = [path.name for path in ROOT.glob("adapters/*") if path.stem not in here]
    ignored = [f"--ignore-glob=/*/classweight/adapters/{name}" for name in others]
    ignored += [f"--ignore-glob=/*/tests/*/*_{name}.py" for name in (*ELSEWHERE, "trainers", "spark", "triton")]
    pytest(session, "tests", "--doctest-modules", "--pyargs", "classweight", *ignored)
    if sys.platform == "linux":
        pytest(session, *files("triton"), TRITON_INTERPRET="1")
    session.run("python", "-m", "classweight.conformance.generate", "--check")
    session.run("python", "-m", "classweight", "conformance")


@nox.session(requires=["package"])
def tensorflow(session: nox.Session) -> None:
    """Test against TensorFlow, against Keras on each of its backends, and against optax on JAX."""
    install(session, "tensorflow", "[tensorflow,keras,torch,jax,conformance]", *groups("pytest", "jax"))
    # It asks for the distribution tensorflow, though tensorflow-cpu is the same module.
    session.install("--no-deps", "tf_keras")
    pytest(session, *files("tensorflow"), "--doctest-modules", "--pyargs", "classweight.adapters.tensorflow")
    jax = ("--doctest-modules", "--pyargs", "classweight.adapters.jax")
    pytest(session, *files("jax", "optax", "flax"), *jax)
    for backend in KERAS_BACKENDS:
        pytest(session, *files("keras"), KERAS_BACKEND=backend)
    # On NumPy, Keras has values and no training.
    pytest(session, "tests/conventions/test_keras.py", KERAS_BACKEND="numpy")


# Chainer uses distutils, which later Pythons do not have.
@nox.session(requires=["package"], python="3.11")
def chainer(session: nox.Session) -> None:
    """Test against Chainer."""
    install(session, "chainer", "[chainer,conformance]", *groups("pytest"))
    pytest(session, *files("chainer"), "--doctest-modules", "--pyargs", "classweight.adapters.chainer")
    session.run("python", "-m", "classweight", "conformance")


@nox.session(requires=["package"])
def trainers(session: nox.Session) -> None:
    """Test the examples and pages on transformers, accelerate, Lightning and Ray."""
    install(session, "trainers", "[torch]", *groups("pytest", "trainers"))
    pytest(session, *files("trainers"))


@nox.session(requires=["package"])
def spark(session: nox.Session) -> None:
    """Test the example on Spark, which needs Java."""
    install(session, "trainers", "", *groups("pytest", "spark"))
    pytest(session, *files("spark"))


@nox.session(requires=["package"], python="3.11")
@nox.parametrize("framework", list(LOWEST))
def lowest(session: nox.Session, framework: str) -> None:
    """Run the suite and some tests with the lowest versions that pyproject allows."""
    extras, suite, tests, chosen = LOWEST[framework]
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *(each for x in extras.split() for each in project["optional-dependencies"][x])]
    floors = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(wanted), re.MULTILINE))
    if framework == "jax":
        del floors["numpy"], floors["ml_dtypes"]  # it needs later ones than we do
    session.install(*(f"{name}=={floor}" for name, floor in floors.items()), *groups("pytest"))
    session.install("--force-reinstall", "--no-deps", str(next(DIST.glob("*.whl"))))
    session.env["PYTHONSAFEPATH"] = "1"
    session.run("python", "-m", "pytest", "-k", chosen, *tests)
    session.run("python", "-m", "classweight", "conformance", "--timeout", "300", "--elements", "20000", *suite.split())


@nox.session(venv_backend="none")
def parity(session: nox.Session) -> None:
    """Run the suite on every backend at once; then give every adapter what each framework's own functions gave."""
    pythons = environments(session, PARITY)
    session.env["CLASSWEIGHT_RECORD"] = str(RECORDS)
    backends = {name: f"{name}@{pythons[home]}" for home, (names, _) in PARITY.items() for name in names}
    python = pythons["tests"]

    def options(names: Iterable[str]) -> list[str]:
        return [option for name in names for option in ("--backend", backends[name])]

    written = ["--json", str(ROOT / ".nox" / "parity.json")]
    if not {"--clause", "--case"} & {*session.posargs}:  # a part of the suite is no page
        written += ["--markdown", str(ROOT / "docs" / "parity.md")]
    suite = ("-m", "classweight", "conformance", "--timeout", "300")
    session.run(python, *suite, *written, *options(backends), *session.posargs)

    def run(command: tuple[str, ...], keras_backend: str = "") -> Any:
        return session.run(*command, env={"KERAS_BACKEND": keras_backend}, silent=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def record(home: str, frameworks: Iterable[str], keras_backend: str = "") -> Future[Any]:
            tests = files(*frameworks, folder="conventions")
            return pool.submit(run, (pythons[home], "-m", "pytest", "--quiet", *tests), keras_backend)

        # JAX takes the longest.
        recorded = [record("tensorflow", ["keras"], backend) for backend in reversed(KERAS_BACKENDS)]
        recorded += [record(home, [name for name in own if name != "keras"]) for home, (_, own) in PARITY.items()]
        for output in recorded:
            print(output.result())
        replay = (python, "tests/conventions/recording.py", str(RECORDS))
        compiled = pool.submit(run, (*replay, "--every", "50", *options(COMPILED)))
        plain = pool.submit(run, (*replay, *options(name for name in backends if name not in COMPILED)))
        print(plain.result(), compiled.result(), sep="\n")


@nox.session(venv_backend="none")
def soak(session: nox.Session) -> None:
    """Run many steps of changing shapes on every adapter, whose memory must stay; steps in threads and in workers."""
    pythons = environments(session, SOAK)
    for home, adapters in SOAK.items():
        for name in adapters:
            session.run(pythons[home], "tests/soak/steps.py", name, "100000")


@nox.session(venv_backend="none")
def benchmark(session: nox.Session) -> None:
    """Measure every adapter against its framework's own loss; the table is printed, and .nox/benchmark.png drawn."""
    pythons = environments(session, BENCHMARK)
    backends = [f"--backend={name}@{pythons[home]}" for home, names in BENCHMARK.items() for name in names]
    report = str(ROOT / ".nox" / "benchmark")
    written = ("--json", f"{report}.json", "--picture", f"{report}.png")
    session.run(pythons["tests"], str(ROOT / "benchmarks"), *backends, *written, *session.posargs)


@nox.session(venv_backend="none")
def mutants(session: nox.Session) -> None:
    """Judge wrong losses, and random changes of what computes; docs/what-does-the-suite-catch.md gets the tables."""
    pythons = environments(session, MUTANTS)
    results = ROOT / ".nox" / "mutants"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    session.run(pythons["tests"], "-m", "pytest", "tests/conformance/test_judge.py", "tests/mutation")
    script = str(ROOT / "tests" / "mutation" / "random_mutants.py")

    def judge(group: tuple[str, tuple[str, ...], int | None, tuple[str, ...]]) -> None:
        home, options, count, paths = group
        earlier = sorted(map(str, results.glob("*.jsonl")))
        chosen = ("--count", str(count)) if count else ("--left", *earlier)
        out = ("--out", str(results / f"{home}-{all_groups.index(group)}.jsonl"), *chosen)
        session.run(pythons[home], script, *out, *options, *session.posargs, *paths)

    all_groups = [(home, *group) for home, groups_of_files in MUTANTS.items() for group in groups_of_files]
    for is_first in (True, False):  # what others have left must be known
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(judge, [group for group in all_groups if bool(group[2]) is is_first]))
    session.run(pythons["tests"], "tests/mutation/page.py", *map(str, sorted(results.glob("*.jsonl"))))
