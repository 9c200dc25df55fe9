"""Cases for one spec, made on the spot: what a user's own loss is judged by. Needs mpmath."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.errors import refuse

from .cases import Case, ExpectedError, TypedArray, brief, load
from .floats import FORMATS

Targets = Literal["index", "distribution"]
Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy
Batches = dict[str, tuple[Any, Any, tuple[str, ...]]]
DTYPES = ("float32", "float64")
ROWS = 6
FLAGS = {
    "wide": ("ConfidentTarget",),
    "confident": ("ConfidentTarget",),
    "offset": ("CommonOffset",),
    "minus-inf": ("InfiniteLogit", "ZeroCoefficientTimesInf"),
    "one-row": ("BatchOfOne",),
    "empty": ("EmptyBatch",),
    "all-ignored": ("AllIgnored",),
    "ignored-nan": ("IgnoredNaN",),
}


def cases_of(hello: Mapping[str, Any], spec: Spec | None, targets: Targets = "index") -> list[Case]:
    """Return what to hand to a worker that says hello: the vectors or, with a spec, the cases of it."""
    if spec is None:
        return list(load())
    takes = {"sample_weight": hello["sample_weight"], "validate": hello.get("validate", False)}
    return cases_for(spec, targets=targets, upstream=hello["framework"] != "numpy", **takes)


def cases_for(
    spec: Spec,
    *,
    targets: Targets = "index",
    sample_weight: bool = True,
    upstream: bool = True,
    validate: bool = False,
    num_classes: int | None = None,
    positions: Sequence[int] = (),
    dtypes: Sequence[str] = DTYPES,
) -> list[Case]:
    """Return cases of this spec: random batches, and those that real losses have got wrong.

    Parameters
    ----------
    spec : SoftmaxCrossEntropy or SigmoidCrossEntropy
    targets : "index" or "distribution"
        What a softmax loss takes.
    sample_weight, upstream, validate : bool
        Whether the loss takes sample weights, whether an upstream gradient can be handed to it, and whether it can be
        told, by ``validate=False``, not to look at values: a bad one then makes its row NaN.
    num_classes : int, optional
        The length of the class axis. Default: what the spec's class weights say, else 5, or 3 outputs.
    positions : sequence of int
        Lengths of the axes beside the batch and the classes, such as (4, 4) for maps of labels.
    dtypes : sequence of str
        Types of the logits: "float16", "bfloat16", "float32", "float64".

    Raises
    ------
    ImportError
        mpmath is missing.
    ValueError
        Distributions for a spec with an ``ignore_index``, or an unknown type.
    """
    if targets == "distribution" and getattr(spec, "ignore_index", None) is not None:
        refuse("targets", "be 'index' for a spec with an ignore_index", repr(targets))
    for dtype in dtypes:
        if dtype not in FORMATS:
            refuse("dtypes", f"be among {', '.join(FORMATS)}", repr(dtype))
    batches = _batches(spec, targets, num_classes or _num_classes(spec), tuple(positions))
    return [case for dtype in dtypes for case in _cases(spec, dtype, batches, sample_weight, upstream, validate)]


def _cases(
    spec: Spec, dtype: str, batches: Batches, sample_weight: bool, upstream: bool, validate: bool
) -> Iterator[Case]:
    for name, (z, t, flags) in batches.items():
        logits, labels = _typed(spec, z, t, dtype)
        rng, shape = _generator(name), _positions(spec, logits.shape) if spec.reduction == "none" else ()
        up = TypedArray.of(rng.uniform(-2, 2, shape), dtype) if upstream else None
        yield _case(f"own-{name}-{dtype}", spec, logits, labels, {}, up, flags)
        if sample_weight and len(z):
            s = np.where(np.arange(len(z)) % 3 == 1, 0, rng.uniform(0.1, 2, len(z)))
            weights = {"sample_weight": TypedArray.of(s, "float32")}
            yield _case(f"own-{name}-sample-weight-{dtype}", spec, logits, labels, weights, up, flags)
        if name == "normal" and labels.dtype == "int64":
            assert isinstance(spec, SoftmaxCrossEntropy)
            for ending, index in {"of-C": z.shape[-1], "below-0": -1}.items():
                if index != spec.ignore_index:
                    outside = TypedArray("int64", np.where(labels.values == t.flat[0], index, labels.values))
                    yield Case(
                        f"own-index-{ending}-{dtype}",
                        "own",
                        brief(spec),
                        logits,
                        outside,
                        flags=("WrappedIndex",),
                        error=ExpectedError("Exception", ()),
                    )
                    if validate:
                        unseen, guarded = {"validate": False}, ("UncheckedValue",)
                        yield _case(f"own-unchecked-{ending}-{dtype}", spec, logits, outside, unseen, up, guarded)


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _batches(spec: Spec, targets: Targets, c: int, positions: tuple[int, ...]) -> Batches:
    """Return logits, targets and flags by name, the classes on the last axis."""
    softmax = isinstance(spec, SoftmaxCrossEntropy)
    ignored = spec.ignore_index if isinstance(spec, SoftmaxCrossEntropy) else spec.ignore_label
    kinds = {"normal": 2.0, "wide": 12.0, "confident": 1.0, "one-row": 2.0, "empty": 1.0}
    if spec.inputs == "logits":
        kinds |= {"offset": 1.0} if softmax else {}
        # A smoothed target has a share of every class: its loss is infinite, whatever else is right.
        kinds |= {} if spec.label_smoothing else {"minus-inf": 0.5}
    if ignored is not None:
        kinds |= {"all-ignored": 1.0} | ({"ignored-nan": 1.0} if spec.inputs == "logits" else {})
    batches: Batches = {}
    for name, sigma in kinds.items():
        rng = _generator(name)
        n = {"one-row": 1, "empty": 0}.get(name, ROWS)
        z, y = rng.normal(0, sigma, (n, *positions, c)), rng.integers(0, c, (n, *positions))
        on_target = y[..., None] == np.arange(c)
        if name == "confident":
            gap = rng.uniform(10, 40, (n, *positions, 1 if softmax else c))
            z = np.where(on_target, gap + z, z if softmax else z - gap)
        elif name == "offset":
            z = z + 4096
        elif name == "minus-inf":
            z = np.where(~on_target & (rng.random(z.shape) < 0.3), -np.inf, z)
        t: Any = y if softmax else on_target.astype(np.float64)
        if softmax and targets == "distribution":
            t = np.where(np.isfinite(z), rng.random(z.shape), 0)
            t = t / t.sum(-1, keepdims=True)
        if ignored is not None and n > 1:
            t[1:2] = ignored
            if name == "all-ignored":
                t[:] = ignored
            if name == "ignored-nan":
                z[1:2] = np.nan
        batches[name] = (_inputs(spec, z), t, FLAGS.get(name, ()))
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


def _typed(spec: Spec, z: Any, t: Any, dtype: str) -> tuple[TypedArray, TypedArray]:
    """Return logits and targets with the classes where the spec wants them."""
    kind = "int64" if t.dtype.kind == "i" else dtype
    if isinstance(spec, SoftmaxCrossEntropy):
        missing = (spec.axis + 1 if spec.axis >= 0 else -spec.axis) - z.ndim
        soft = t.ndim == z.ndim
        z, t = (x.reshape(len(x), *(1,) * missing, *x.shape[1:]) for x in (z, t))
        z = np.moveaxis(z, -1, spec.axis)
        t = np.moveaxis(t, -1, spec.axis) if soft else t
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
