"""Private names of frameworks: those that nothing public replaces, and the versions in which they were seen."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"torch": "torch", "tensorflow": "tensorflow_cpu", "keras": "keras", "jax": "jax", "chainer": "chainer"}
# What is public by its name, and private all the same.
PRIVATE = re.compile(r"\._(?!_)|^keras\.src\b|^tensorflow\.python\b")

# By version and file. A new version of a framework: see that these are there and do as they did, or are public now.
SEEN = {
    ("torch", "2.13.0"): {
        "adapters/torch/arrays.py": {
            "torch._C._are_functorch_transforms_active",
            "torch._C._functorch.is_batchedtensor",
            "torch._C._functorch.is_legacy_batchedtensor",
            "torch._C._len_torch_dispatch_stack",
            "torch._subclasses.fake_tensor.FakeTensor",
        },
        "adapters/torch/cpu.py": {"torch.autograd.forward_ad._current_level"},
        "adapters/torch/operators.py": {"torch._C._are_functorch_transforms_active", "torch.utils._pytree"},
        "adapters/torch/route.py": {"torch.autograd.forward_ad._current_level"},
    },
    ("tensorflow", "2.21.0"): {
        "adapters/tensorflow/operation.py": {
            "tensorflow.python.eager.forwardprop_util",
            "tensorflow.python.eager.record",
        },
    },
    ("keras", "3.15.1"): {
        "adapters/keras/__init__.py": {
            "keras.src.backend.common.symbolic_scope.in_symbolic_scope",
            "keras.src.backend.get_keras_mask",
        },
    },
}


def names(text: str) -> Iterator[str]:
    """Yield the dotted names of frameworks that a file uses, each as long as it stands there."""
    tree = ast.parse(text)
    roots = {framework: framework for framework in FRAMEWORKS}
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            roots |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.Attribute) and node not in inner:
            parts, value = [node.attr], node.value
            while isinstance(value, ast.Attribute):
                inner.add(value)
                parts, value = [value.attr, *parts], value.value
            if isinstance(value, ast.Name) and value.id in roots:
                yield ".".join([roots[value.id], *parts])
            elif parts[0] in roots:  # self.torch, where an object holds the module
                yield ".".join(parts)


def private(text: str) -> set[str]:
    """Return the private names of frameworks among them."""
    return {name for name in names(text) if name.partition(".")[0] in FRAMEWORKS and PRIVATE.search(name)}


def test_private_names_are_those_that_are_named_here() -> None:
    folders = ("classweight", "adapters", "conformance", "benchmarks", "examples", "docs")
    files = {str(p.relative_to(ROOT)): p.read_text() for folder in folders for p in (ROOT / folder).rglob("*.py")}
    found = {file: used for file, text in files.items() if (used := private(text))}
    assert found == {file: used for by_file in SEEN.values() for file, used in by_file.items()}


def test_the_versions_are_those_that_are_tested() -> None:
    pins = "\n".join(path.read_text() for path in (ROOT / "constraints").glob("*.txt"))
    for framework, version in SEEN:
        assert {*re.findall(rf"^{FRAMEWORKS[framework]}==(.+)$", pins, re.MULTILINE)} == {version}


def test_private_names_are_found_however_they_are_written() -> None:
    text = """
import torch
import torch._dynamo
import tensorflow as tf
from keras.src.backend import get_keras_mask as mask
from torch import Tensor, nn
from .x import _y
print(torch.__version__, tf.python.eager, torch.nn.functional.relu, self._private, self.torch._C.x.y)
"""
    assert private(text) == {
        "torch._dynamo",
        "tensorflow.python.eager",
        "keras.src.backend.get_keras_mask",
        "torch._C.x.y",
    }
