"""CuPy: the kernels' source compiled and, on the CPU, run; the whole adapter on a device where there is one."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import classweight.adapters.numpy as cwn
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.compute import cuda as kernels
from classweight.reference import reference

from ..arguments.names import Valid
from ..calls import CLOSE, ROWS_WITHOUT_A_SOFTMAX, RandomCall, random_call
from ..refusals import Refusal, Y, Z, assert_refused, each_refusal
from ..truth import assert_true
from .emulated_cuda import emulated_adapter, on_device


def nvrtc() -> Any:
    """Return NVRTC from the package nvidia-cuda-nvrtc, or None."""
    pattern = "nvidia/*/lib/libnvrtc.so.*"
    found = [path for folder in map(Path, sys.path) if folder.is_dir() for path in folder.glob(pattern)]
    return ctypes.CDLL(str(found[0])) if found else None


def compile_with_nvrtc(library: Any, options: list[str]) -> str:
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(program), kernels.SOURCE.encode(), b"k.cu", 0, None, None) == 0
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    library.nvrtcCompileProgram(program, len(options), arguments)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return log.value.decode()


@pytest.mark.parametrize("dtype", list(kernels.TYPES))
def test_the_kernels_compile(dtype: str, tmp_path: Path) -> None:
    nvcc, library = shutil.which("nvcc"), nvrtc()
    if nvcc is None and library is None:
        pytest.skip("neither nvcc nor NVRTC")
    source = tmp_path / "kernels.cu"
    source.write_text(kernels.SOURCE)
    for computed_in, lanes in [("float32", 1), ("float32", 4), ("float32", 32), ("float64", 256)]:
        options = kernels.options(dtype, computed_in, lanes)
        if library is not None:
            assert compile_with_nvrtc(library, [*options, "--gpu-architecture=sm_80"]) == ""
        if nvcc is not None:
            cubin = [nvcc, "-cubin", "-arch=sm_80", "-Werror", "all-warnings", *options]
            subprocess.run([*cubin, "-o", str(tmp_path / "kernels.cubin"), str(source)], check=True)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with emulated_adapter(tmp_path_factory.mktemp("cuda")) as adapter:
        yield adapter


@pytest.mark.parametrize("seed", range(200))
def test_the_adapter_equals_the_reference(adapter: Any, seed: int) -> None:
    call = random_call(seed)
    expected = reference(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    z = on_device(call.logits)
    value, gradient = adapter.loss_and_grad(call.spec, z, call.targets, upstream=call.upstream, **call.arguments)
    np.testing.assert_allclose(value, expected[0], **CLOSE, err_msg=str(call))
    call.assert_gradient(gradient, expected[1])
    np.testing.assert_array_equal(adapter.loss(call.spec, z, call.targets, **call.arguments), value)
    parts = adapter.loss_parts(call.spec, z, call.targets, **without_denominator(call))
    wanted = cwn.loss_parts(call.spec, call.logits, call.targets, **without_denominator(call))
    np.testing.assert_allclose(parts, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("seed", range(100))
def test_the_adapter_equals_fifty_digits_under_weights_of_either_sign(adapter: Any, seed: int) -> None:
    call = random_call(seed, small=True, signed=True)
    z = on_device(call.logits)
    assert_true(call, *adapter.loss_and_grad(call.spec, z, call.targets, upstream=call.upstream, **call.arguments))


@pytest.mark.parametrize("logit", [2.0, np.inf, np.nan])
def test_smoothed_coefficients_that_cancel_are_not_none(adapter: Any, logit: float) -> None:
    spec = SoftmaxCrossEntropy(class_weight=(1, -1), label_smoothing=1.0, reduction="none")
    z = np.array([[1.0, logit], [np.nan, np.inf]])
    found = adapter.loss_and_grad(spec, on_device(z), np.array([0, 1]), np.array([3.0, 0]), upstream=np.array([2.0, 1]))
    for x, wanted in zip(found, reference(spec, z, [0, 1], [3.0, 0], upstream=[2.0, 1]), strict=True):
        np.testing.assert_allclose(x, wanted, rtol=1e-15)
    assert np.isnan(found[0]).tolist() == [not np.isfinite(logit), False]


def without_denominator(call: RandomCall) -> dict[str, Any]:
    return {name: value for name, value in call.arguments.items() if name != "denominator"}


SHAPES = {1: (5, 7, 3), 4: (6, 15), 32: (6, 140), 256: (3, 2100)}


def index_call(lanes: int, smoothing: float = 0.0) -> tuple[Any, Any, Any, Any]:
    """Return a spec, logits, labels with an ignored one, and an upstream gradient."""
    rng = np.random.default_rng(lanes)
    shape = SHAPES[lanes]
    positions = shape[:1] + shape[2:]
    labels = rng.integers(0, shape[1], positions)
    labels[0] = -1
    spec = SoftmaxCrossEntropy(
        class_weight=rng.random(shape[1]), ignore_index=-1, label_smoothing=smoothing, reduction="none"
    )
    return spec, 6 * rng.normal(size=shape), labels, rng.normal(size=positions)


@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lanes", list(SHAPES))
def test_kernels_agree_with_numpy(
    adapter: Any, lanes: int, dtype: Any, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter.closed_form, "of_arrays", None)  # the kernels, and nothing else
    spec, z, labels, above = index_call(lanes, smoothing)
    z = z.astype(dtype)
    z[0] = np.nan  # ignored
    assert kernels.lanes(z.shape[1], z[0, 0].size) == lanes
    expected = reference(spec, z, labels, upstream=above)
    for precision, rtol in (("native", 200 * np.finfo(dtype).eps), ("exact", np.finfo(dtype).eps)):
        exact = dataclasses.replace(spec, precision=precision)
        value, gradient = adapter.loss_and_grad(exact, on_device(z), labels, upstream=above)
        assert value.dtype == gradient.dtype == dtype
        assert not value[0].any()
        np.testing.assert_allclose(value, expected[0], rtol=rtol if dtype is np.float32 else 1e-13)
        # A smoothed gradient cancels, within a row's largest coefficient.
        scale = np.abs(expected[1]).max() * (smoothing > 0)
        np.testing.assert_allclose(gradient, expected[1], rtol=max(rtol, 1e-13), atol=rtol * scale)


@pytest.mark.parametrize("lanes", list(SHAPES))
def test_exact_bits_of_the_kernels_are_those_of_numpy(adapter: Any, lanes: int) -> None:
    spec, z, labels, above = index_call(lanes)
    spec, z = dataclasses.replace(spec, precision="exact"), z.astype(np.float32)
    for got, wanted in zip(
        adapter.loss_and_grad(spec, on_device(z), labels, upstream=above),
        cwn.loss_and_grad(spec, z, labels, upstream=above),
        strict=True,
    ):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("gap", [17, 30, 60])
@pytest.mark.parametrize("precision", ["native", "exact"])
def test_a_confident_prediction_keeps_its_loss_and_gradient(adapter: Any, gap: float, precision: Any) -> None:
    z = on_device(np.array([[gap, 0, 0]], np.float32))
    small = np.exp(-np.float64(gap))
    value, gradient = adapter.loss_and_grad(SoftmaxCrossEntropy(precision=precision), z, np.array([0]))
    np.testing.assert_allclose(value, 2 * small, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-2 * small, small, small]], rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("row", ROWS_WITHOUT_A_SOFTMAX)
def test_a_row_without_a_softmax_is_nan(adapter: Any, row: Any, smoothing: float) -> None:
    spec = SoftmaxCrossEntropy(label_smoothing=smoothing, reduction="none")
    value, gradient = adapter.loss_and_grad(spec, on_device(np.array([row, [0, 1, 2]], float)), np.array([0, 1]))
    np.testing.assert_array_equal(np.isnan(value), [True, False])
    np.testing.assert_array_equal(np.isnan(gradient).all(1), [True, False])


@pytest.mark.parametrize("bad", [-1, 3, -100])
def test_a_bad_label_makes_its_row_nan_and_validation_buys_the_error(adapter: Any, bad: int) -> None:
    labels, spec = np.where(np.arange(4) == 2, bad, Y), SoftmaxCrossEntropy(reduction="none")
    value, gradient = adapter.loss_and_grad(spec, on_device(Z), labels)
    np.testing.assert_array_equal(np.isnan(value), [False, False, True, False])
    np.testing.assert_array_equal(np.isnan(gradient).all(1), np.isnan(value))
    with pytest.raises(IndexError, match=rf"got {bad} at position \(2,\)"):
        adapter.loss(spec, on_device(Z), labels, validate=True)


@each_refusal
def test_a_bad_call_is_refused(adapter: Any, refusal: Refusal) -> None:
    def loss(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Any:
        return adapter.loss(spec, on_device(logits), targets, **arguments, validate=True)

    assert_refused(refusal, loss, lambda x: x)


@pytest.mark.parametrize("name", ["loss", "loss_and_grad", "loss_parts"])
@pytest.mark.parametrize("spec", [SoftmaxCrossEntropy(), SigmoidCrossEntropy()], ids=lambda spec: type(spec).__name__)
def test_errors_say_the_arguments_of_the_call(adapter: Any, name: str, spec: Any) -> None:
    targets = Y if isinstance(spec, SoftmaxCrossEntropy) else np.eye(3)[Y]
    call = Valid(getattr(adapter, name), {"spec": spec, "logits": on_device(Z), "targets": targets, "validate": True})
    assert call.assert_errors_name_arguments(on_device)


def test_logits_that_are_not_on_a_device_are_refused(adapter: Any) -> None:
    with pytest.raises(TypeError, match="`logits` must be an array of CuPy; got ndarray"):
        adapter.loss(SoftmaxCrossEntropy(), Z, Y)


@pytest.fixture
def cupy() -> Any:
    try:
        cupy = importlib.import_module("cupy")
        cupy.cuda.runtime.getDeviceCount()
    except Exception:  # a driver that is missing shows in several ways
        pytest.skip("no CUDA device")
    return cupy


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["native", "exact"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("lanes", list(SHAPES))
def test_a_device_agrees_with_the_host(cupy: Any, lanes: int, smoothing: float, dtype: Any, precision: Any) -> None:
    import classweight.adapters.cupy as cwc

    spec, z, labels, above = index_call(lanes, smoothing)
    spec, z = dataclasses.replace(spec, precision=precision), z.astype(dtype)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        results = cwc.loss_and_grad(
            spec, cupy.asarray(z), cupy.asarray(labels), upstream=cupy.asarray(above.astype(dtype))
        )
        stream.synchronize()
    expected = cwn.loss_and_grad(spec, z, labels, upstream=above.astype(dtype))
    tolerance = 0 if precision == "exact" and not smoothing and dtype is not np.float64 else 64 * np.finfo(dtype).eps
    for got, wanted in zip(results, expected, strict=True):
        scale = np.abs(wanted).max().astype(float)
        np.testing.assert_allclose(got.get(), wanted, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(100))
def test_a_device_equals_the_reference(cupy: Any, seed: int) -> None:
    import classweight.adapters.cupy as cwc

    call = random_call(seed)
    expected = reference(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    z, t = cupy.asarray(call.logits), cupy.asarray(call.targets)
    value, gradient = cwc.loss_and_grad(call.spec, z, t, upstream=cupy.asarray(call.upstream), **call.arguments)
    np.testing.assert_allclose(value.get(), expected[0], **CLOSE, err_msg=str(call))
    call.assert_gradient(gradient.get(), expected[1])


@pytest.mark.gpu
@pytest.mark.parametrize("spec", [SoftmaxCrossEntropy(class_weight=[1, 2, 3]), SigmoidCrossEntropy()])
@pytest.mark.parametrize("soft", [False, True], ids=["index", "distribution"])
def test_nothing_synchronises(cupy: Any, spec: Any, soft: bool) -> None:
    """A stream that is being captured into a graph refuses whatever waits for it; the graph computes anew."""
    import classweight.adapters.cupy as cwc

    soft = soft or isinstance(spec, SigmoidCrossEntropy)
    z = cupy.asarray(np.arange(12.0, dtype=np.float32).reshape(4, 3))
    targets = cupy.full((4, 3), 0.25, np.float32) if soft else cupy.asarray(np.array([0, 1, 2, 5]))
    sample_weight = cupy.asarray(np.array([1.0, 0.5, 0, 2]))
    relaxed = cupy.cuda.runtime.streamCaptureModeRelaxed
    with cupy.cuda.Stream(non_blocking=True) as stream:
        cwc.loss_and_grad(spec, z, targets, sample_weight)  # compiles, and fills the pool of memory
        stream.synchronize()
        stream.begin_capture(relaxed)
        captured = cwc.loss_and_grad(spec, z, targets, sample_weight)
        graph = stream.end_capture()
        z *= -1
        graph.launch()
        anew = cwc.loss_and_grad(spec, z, targets, sample_weight)
        stream.synchronize()
    for got, wanted in zip(captured, anew, strict=True):
        np.testing.assert_array_equal(got.get(), wanted.get())


@pytest.mark.gpu
def test_each_device_computes_on_its_own(cupy: Any) -> None:
    """The device that is current is not the logits'."""
    import classweight.adapters.cupy as cwc

    last = cupy.cuda.runtime.getDeviceCount() - 1
    with cupy.cuda.Device(last):
        z, labels = cupy.asarray(Z), cupy.asarray(Y)
    with cupy.cuda.Device(0):
        value, gradient = cwc.loss_and_grad(SoftmaxCrossEntropy(), z, labels)
    assert value.device.id == gradient.device.id == last
    np.testing.assert_allclose(value.get(), cwn.loss(SoftmaxCrossEntropy(), Z, Y), rtol=1e-12)
