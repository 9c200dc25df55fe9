"""Triton's kernels compiled for devices that need not be there: no register spills, and whole words where they fit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.adapters.torch.arrays import prepared, xp
from classweight.lowering import lower

if (sys.platform, platform.machine()) != ("linux", "x86_64"):
    pytest.skip("Triton is installed on Linux on x86-64 only", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from classweight.adapters.torch import triton_kernels as kernels
from classweight.adapters.torch import triton_launch

PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64"}
NAMES |= {torch.int32: "i32", torch.int64: "i64"}


class Compiled:
    """A kernel that is compiled where it would be launched."""

    def __init__(self, kernel: Any, capability: int) -> None:
        self.kernel, self.capability = kernel, capability
        self.ptx: dict[str, str] = {}

    def __getitem__(self, grid: Any) -> Any:
        def compile(*arguments: Any, num_warps: int = 4, **flags: Any) -> None:
            names = [parameter.name for parameter in self.kernel.params]
            signature = dict.fromkeys(names, "constexpr")
            constants, attributes = dict(flags), {}
            for i, (name, x) in enumerate(zip(names, arguments, strict=False)):
                if isinstance(x, torch.Tensor):
                    signature[name] = f"*{NAMES[x.dtype]}"
                    attributes[(i,)] = [["tt.divisibility", 16]]
                elif x is None:
                    constants[name] = None
                else:
                    signature[name] = "i32"
            source = ASTSource(self.kernel, signature, constants, attributes)
            target = GPUTarget("cuda", self.capability, 32)
            self.ptx[self.kernel.__name__] = triton.compile(source, target, {"num_warps": num_warps}).asm["ptx"]

        return compile


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def compile_kernels(monkeypatch: pytest.MonkeyPatch, call: Any, capability: int = 90) -> dict[str, str]:
    """Return the PTX of the kernels that this call would launch, by name."""
    found: dict[str, str] = {}
    for name in ("hard", "dense", "binary"):
        for part in ("losses", "statistics", "gradient"):
            kernel = getattr(kernels, f"{name}_{part}", None)
            if kernel is not None:
                compiled = Compiled(kernel, capability)
                compiled.ptx = found
                monkeypatch.setattr(kernels, f"{name}_{part}", compiled)
    wide = call.spec.precision == "exact" or call.logits.dtype is torch.float64
    inside = torch.float64 if wide else torch.float32
    c = lower(xp, call, inside)
    _, statistics = triton_launch.losses(call.logits, c, inside, each=False)
    triton_launch.gradient(call.logits, c, inside, statistics, torch.ones((), dtype=torch.float64))
    return found


def softmax_call(shape: Any, dtype: torch.dtype, targets: str = "index", **fields: Any) -> Any:
    smoothing = 0.1 if targets == "smoothed" else 0.0
    spec = SoftmaxCrossEntropy(class_weight=[1.0] * shape[1], label_smoothing=smoothing, **fields)
    z = torch.zeros(shape, dtype=dtype)
    given = torch.zeros(shape) if targets == "distribution" else torch.zeros((shape[0], *shape[2:]), dtype=torch.int64)
    return prepared(spec, z, False, given, None, None, None, None)


def assert_fits(ptx: dict[str, str], folder: Path) -> None:
    """Assemble, and look for registers that had to be kept in memory."""
    for name, text in ptx.items():
        source = folder / f"{name}.ptx"
        source.write_text(text)
        target = re.search(r"\.target (\w+)", text)[1]  # type: ignore[index]
        command = [PTXAS, "-v", f"-arch={target}", source, "-o", folder / "kernel.cubin"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        assert "0 bytes spill stores, 0 bytes spill loads" in report, (name, report)


ODD, SMALL, MAP = (4, 50257), (64, 10), (2, 21, 64, 64)


@pytest.mark.parametrize(
    ("shape", "dtype", "targets", "precision", "capability"),
    [
        (ODD, torch.float32, "index", "native", 80),
        (ODD, torch.bfloat16, "smoothed", "exact", 90),
        (SMALL, torch.float32, "index", "native", 90),
        (SMALL, torch.float32, "distribution", "exact", 80),
        (SMALL, torch.float16, "smoothed", "native", 80),
        (MAP, torch.bfloat16, "index", "exact", 90),
        (MAP, torch.float32, "index", "native", 90),
        (MAP, torch.float64, "distribution", "native", 90),
    ],
    ids=str,
)
def test_nothing_is_spilled(
    shape: Any, dtype: Any, targets: str, precision: Any, capability: int,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    call = softmax_call(shape, dtype, targets, precision=precision)
    assert_fits(compile_kernels(monkeypatch, call, capability), tmp_path)


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, "native"), (torch.float16, "exact")], ids=str)
def test_binary_kernels(dtype: Any, precision: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    z = torch.zeros(64, 80, dtype=dtype)
    call = prepared(SigmoidCrossEntropy(precision=precision), z, False, z, None, None, None, None)
    assert_fits(compile_kernels(monkeypatch, call), tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(64, 1000), ODD, MAP], ids=str)
def test_logits_move_sixteen_bytes_at_a_time(shape: Any, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of an odd length, too, but for the tiles at both ends of a row."""
    ptx = compile_kernels(monkeypatch, softmax_call(shape, dtype))
    for name, move in (("hard_statistics", "ld"), ("hard_gradient", "ld"), ("hard_gradient", "st")):
        assert re.search(rf"{move}\.global\S*\.v4\.b32", ptx[name])
