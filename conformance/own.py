"""Cases for one spec, made on the spot: what a user's own loss is judged by. Needs mpmath."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.errors import refuse

from .cases import Case, ExpectedError, TypedArray, brief

Targets = Literal["index", "distribution"]
Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy
DTYPES = ("float32", "float64")
ROWS = 6


def cases_for(
    spec: Spec, *, targets: Targets = "index", sample_weight: bool = True, upstream: bool = True
) -> list[Case]:
    """Return cases of this spec, in float32 and float64.

    Parameters
    ----------
    spec : SoftmaxCrossEntropy or SigmoidCrossEntropy
    targets : "index" or "distribution"
        What a softmax loss takes.
    sample_weight, upstream : bool
        Whether the loss takes sample weights, and whether an upstream gradient can be handed to it.

    Raises
    ------
    ImportError
        mpmath is missing.
    ValueError
        Distributions for a spec with an ``ignore_index``.
    """
    if targets == "distribution" and getattr(spec, "ignore_index", None) is not None:
        refuse("targets", "be 'index' for a spec with an ignore_index", repr(targets))
    return [case for dtype in DTYPES for case in _cases(spec, dtype, targets, sample_weight, upstream)]


def _cases(spec: Spec, dtype: str, targets: Targets, sample_weight: bool, upstream: bool) -> Iterator[Case]:
    softmax = isinstance(spec, SoftmaxCrossEntropy)
    for name, (z, t, flags) in _batches(spec, targets).items():
        logits, labels = _call(spec, z, t, dtype)
        rng, shape = _generator(name), _positions(spec, logits.shape) if spec.reduction == "none" else ()
        up = TypedArray.of(rng.uniform(-2, 2, shape), dtype) if upstream else None
        yield _case(f"own-{name}-{dtype}", spec, logits, labels, {}, up, flags)
        if sample_weight and len(z):
            s = np.where(np.arange(len(z)) % 3 == 1, 0, rng.uniform(0.1, 2, len(z)))
            weights = {"sample_weight": TypedArray.of(s, "float32")}
            yield _case(f"own-{name}-sample-weight-{dtype}", spec, logits, labels, weights, up, flags)
        if name == "normal" and softmax and targets == "index":
            outside = TypedArray.of(np.where(labels.values == labels.values[0], z.shape[-1], labels.values), "int64")
            error = ExpectedError("Exception", ())
            yield Case(
                f"own-index-of-C-{dtype}", "own", brief(spec), logits, outside, flags=("WrappedIndex",), error=error
            )


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _batches(spec: Spec, targets: Targets) -> dict[str, tuple[Any, Any, tuple[str, ...]]]:
    """Return logits, targets and flags by name, the classes on the last axis."""
    softmax = isinstance(spec, SoftmaxCrossEntropy)
    c = _num_classes(spec)
    kinds = {"normal": 2.0, "wide": 12.0, "confident": 1.0, "offset": 1.0, "one-row": 2.0, "empty": 1.0}
    flags = {
        "confident": ("ConfidentTarget",),
        "offset": ("CommonOffset",),
        "one-row": ("BatchOfOne",),
        "empty": ("EmptyBatch",),
        "all-ignored": ("AllIgnored",),
        "ignored-nan": ("IgnoredNaN",),
    }
    ignored = spec.ignore_index if isinstance(spec, SoftmaxCrossEntropy) else spec.ignore_label
    if ignored is not None:
        kinds |= {"all-ignored": 1.0, "ignored-nan": 1.0}
    if spec.inputs != "logits":
        kinds = {name: sigma for name, sigma in kinds.items() if name not in ("offset", "ignored-nan")}
    elif not softmax:
        del kinds["offset"]
    batches: dict[str, tuple[Any, Any, tuple[str, ...]]] = {}
    for name, sigma in kinds.items():
        rng = _generator(name)
        n = {"one-row": 1, "empty": 0}.get(name, ROWS)
        z, y = rng.normal(0, sigma, (n, c)), rng.integers(0, c, n)
        on_target = y[:, None] == np.arange(c)
        if name == "confident":
            gap = rng.uniform(10, 40, (n, c if not softmax else 1))
            z = np.where(on_target, gap + z, z if softmax else z - gap)
        elif name == "offset":
            z = z + 4096
        t: Any = y if softmax else on_target.astype(np.float64)
        if softmax and targets == "distribution":
            t = rng.random((n, c))
            t = t / t.sum(-1, keepdims=True)
        if ignored is not None and n > 1:
            t[1:2] = ignored
            if name == "all-ignored":
                t[:] = ignored
            if name == "ignored-nan":
                z[1:2] = np.nan
        batches[name] = (_inputs(spec, z), t, flags.get(name, ()))
    return batches


def _num_classes(spec: Spec) -> int:
    if isinstance(spec, SigmoidCrossEntropy):
        shapes = [np.shape(w)[-1:] for w in spec.class_weight or ()]
        return int(next((n for (n,) in filter(None, shapes) if n > 1), 3))
    if not spec.class_weight:
        return 5
    if isinstance(spec.class_weight[0], tuple):
        return int(max(key for key, _ in spec.class_weight)) + 1 + (spec.missing_class_weight != "error")
    return len(spec.class_weight)


def _inputs(spec: Spec, z: Any) -> Any:
    if spec.inputs == "logits":
        return z
    z = np.clip(z, -8, 8)
    odds = np.exp(z)
    p = odds / (odds.sum(-1, keepdims=True) if isinstance(spec, SoftmaxCrossEntropy) else 1 + odds)
    return np.log(p) if spec.inputs == "log_probs" else p


def _call(spec: Spec, z: Any, t: Any, dtype: str) -> tuple[TypedArray, TypedArray]:
    """Return logits and targets with the classes where the spec wants them."""
    if isinstance(spec, SoftmaxCrossEntropy):
        ndim = spec.axis + 1 if spec.axis >= 0 else -spec.axis
        extra = (1,) * (ndim - 2)
        z = np.moveaxis(z.reshape(len(z), *extra, z.shape[-1]), -1, spec.axis)
        distribution = np.ndim(t) == 2
        t = (
            np.moveaxis(t.reshape(len(t), *extra, t.shape[-1]), -1, spec.axis)
            if distribution
            else t.reshape(len(t), *extra)
        )
    kind = "int64" if np.asarray(t).dtype.kind == "i" else dtype
    return TypedArray.of(z, dtype), TypedArray.of(t, kind)


def _case(
    name: str,
    spec: Spec,
    logits: TypedArray,
    targets: TypedArray,
    arguments: dict[str, Any],
    upstream: TypedArray | None,
    flags: tuple[str, ...],
) -> Case:
    try:
        from .drafts import expected_numbers
    except ImportError as cause:
        raise ImportError(f"a loss of your own is judged with mpmath: pip install mpmath ({cause})") from cause
    case = {
        "id": name,
        "clause": "own",
        "tier": "required",
        "flags": flags,
        "spec": brief(spec),
        **expected_numbers(spec, logits, targets, arguments, upstream),
    }
    return Case.from_parts(case, logits, targets, arguments, upstream)


def _positions(spec: Spec, shape: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(spec, SigmoidCrossEntropy):
        return shape[:-1] if spec.average_outputs else shape
    axis = spec.axis % len(shape)
    return shape[:axis] + shape[axis + 1 :]
