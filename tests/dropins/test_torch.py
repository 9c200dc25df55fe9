"""Each drop-in beside the function it replaces, over everything that one takes and refuses."""

from __future__ import annotations

import copy
import inspect
import itertools
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import classweight.adapters.torch as cwt
from classweight.conventions import DIFFERENCES

from .helped import check as check_help

# The deprecated arguments, and names of reductions, warn in torch.
pytestmark = pytest.mark.filterwarnings("ignore:.*reduction=:UserWarning")
NAMES = ("cross_entropy", "nll_loss", "binary_cross_entropy_with_logits")
MODULES = ("CrossEntropyLoss", "NLLLoss", "BCEWithLogitsLoss")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SHAPES = [(4,), (5, 4), (1, 3), (6, 1), (0, 3), (3, 4, 2), (2, 3, 0), (2, 3, 2, 2), (2, 2, 1, 3, 2)]
REDUCTIONS = ("mean", "sum", "none", "elementwise_mean")
IDS = {d.id for d in DIFFERENCES}


@dataclass
class Outcome:
    """What a call gave: a loss and the gradients asked for, or an error."""

    loss: Tensor | None = None
    gradients: dict[str, Tensor] = field(default_factory=dict)
    error: Exception | None = None


def run(function: Callable[..., Tensor], arguments: dict[str, Any], wanted: tuple[str, ...]) -> Outcome:
    """Call with fresh leaves, of which ``wanted`` require a gradient, and differentiate with uneven upstream values."""
    leaves = {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in arguments.items()}
    try:
        for name in wanted:
            leaves[name].requires_grad_()
        loss = function(**leaves)
        if loss.requires_grad:
            upstream = torch.cos(1.7 * torch.arange(loss.numel(), dtype=torch.float64) + 0.4)
            loss.backward(upstream.reshape(loss.shape).to(loss.dtype))
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        return Outcome(error=error)
    return Outcome(loss.detach(), {name: leaves[name].grad for name in wanted})


def describe(arguments: dict[str, Any]) -> str:
    text = {k: f"{v.dtype}{tuple(v.shape)}" if isinstance(v, Tensor) else v for k, v in arguments.items()}
    return ", ".join(f"{k}={v}" for k, v in text.items())


def assert_close(got: Tensor, expected: Tensor, loosest: torch.dtype, message: str) -> None:
    """Compare shape and dtype, then values to the rounding of the loosest type that took part."""
    assert got.shape == expected.shape, f"shape {tuple(got.shape)}, not {tuple(expected.shape)}: {message}"
    assert got.dtype == expected.dtype, f"{got.dtype}, not {expected.dtype}: {message}"
    eps = torch.finfo(loosest).eps
    finite = expected.double().abs().nan_to_num(0, 0, 0)
    scale = float(finite.max()) if expected.numel() else 0.0
    rtol, atol = (64 if eps < 1e-5 else 12) * eps, 4 * eps * scale
    torch.testing.assert_close(
        got.double(), expected.double(), rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"{message}\n{text}"
    )


def compare(name: str, arguments: dict[str, Any], wanted: tuple[str, ...] = ("input",)) -> None:
    """Assert that the drop-in does what the native function does, but for the named differences."""
    native, ours = run(getattr(F, name), arguments, wanted), run(getattr(cwt, name), arguments, wanted)
    message = f"{name}({describe(arguments)})"
    if native.error is not None and arguments["target"].dtype is torch.uint8 and is_about_bytes(native.error):
        assert "torch-uint8-targets" in IDS
        native = run(getattr(F, name), arguments | {"target": arguments["target"].long()}, wanted)
    if native.error is not None:
        assert isinstance(ours.error, ValueError | TypeError), (
            f"{message} refused natively: {native.error!r}; ours {ours}"
        )
        return
    assert ours.error is None, f"{message} is refused: {ours.error!r}"
    loosest = max((v.dtype for v in arguments.values() if is_floating(v)), key=lambda t: torch.finfo(t).eps)
    assert_close(ours.loss, native.loss, loosest, message)
    for of in wanted:
        if of == "input" and is_without_weights(name, arguments, native.loss):
            assert not ours.gradients[of].any(), message
            continue
        assert_close(ours.gradients[of], native.gradients[of], loosest, f"gradient to {of}: {message}")


def is_about_bytes(error: Exception) -> bool:
    return "found Byte" in str(error) or "Expected dtype int32/int64 for index" in str(error)


def is_floating(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def is_without_weights(name: str, arguments: dict[str, Any], loss: Tensor) -> bool:
    """Whether this is the mean of rows that are there and all weigh 0, whose native gradient is NaN."""
    assert "torch-zero-weight-mean-gradient" in IDS
    weight, target = arguments.get("weight"), arguments["target"]
    if name.startswith("binary") or weight is None or is_floating(target) or not loss.isnan().all():
        return False
    return not weight[target[target != arguments.get("ignore_index", -100)].long()].any()


class Draw:
    """Random arguments of the softmax losses and of the binary one."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def pick(self, *choices: Any) -> Any:
        return choices[int(torch.randint(len(choices), (), generator=self.generator))]

    def uniform(self, shape: Any, dtype: torch.dtype, low: float = 0.0, high: float = 1.0) -> Tensor:
        return (torch.rand(shape, generator=self.generator, dtype=torch.float64) * (high - low) + low).to(dtype)

    def weight(self, shape: Any, dtype: torch.dtype) -> Tensor:
        kept = torch.rand(shape, generator=self.generator) >= self.pick(0, 0, 0.4, 1)
        return self.uniform(shape, dtype, 0.1, 3) * kept

    def reductions(self) -> dict[str, Any]:
        legacy = {"size_average": self.pick(None, True, False), "reduce": self.pick(None, True, False)}
        return self.pick(*({"reduction": r} for r in REDUCTIONS), legacy, {**legacy, "reduction": "unread"})

    def indices(self) -> dict[str, Any]:
        """Return arguments that ``cross_entropy`` and ``nll_loss`` share."""
        shape, dtype = self.pick(*SHAPES), self.pick(*DTYPES)
        classes, positions = shape[min(1, len(shape) - 1)], shape[:1] * (len(shape) > 1) + shape[2:]
        index = self.pick(-100, -100, 0, 2, -3, 255)
        target = torch.randint(classes, positions, generator=self.generator)
        marked = torch.rand(positions, generator=self.generator) < self.pick(0, 0.3, 1)
        kind = self.pick(torch.int64, torch.int64, torch.int64, torch.uint8)
        if kind is torch.int64 or 0 <= index < 256:
            target = torch.where(marked, index, target)
        arguments = {"input": self.uniform(shape, dtype, -3, 3), "target": target.to(kind), "ignore_index": index}
        if self.pick(True, False):
            arguments["weight"] = self.weight(classes, self.pick(dtype, dtype, dtype, *DTYPES))
        return arguments | self.reductions()


@pytest.mark.parametrize("seed", range(800))
def test_cross_entropy_of_indices(seed: int) -> None:
    draw = Draw(seed)
    compare("cross_entropy", draw.indices() | {"label_smoothing": draw.pick(0.0, 0.0, 0.1, 0.6, 1.0)})


@pytest.mark.parametrize("seed", range(800))
def test_cross_entropy_of_distributions(seed: int) -> None:
    draw = Draw(seed)
    shape, dtype = draw.pick(*SHAPES), draw.pick(*DTYPES)
    classes = shape[min(1, len(shape) - 1)]
    target = draw.uniform(shape, draw.pick(dtype, dtype, *DTYPES), 0, draw.pick(0.2, 1, 3))
    arguments = {"input": draw.uniform(shape, dtype, -3, 3), "target": target * draw.pick(1, target > 0.1)}
    wanted: tuple[str, ...] = draw.pick(("input",), ("target",), ("input", "target"))
    if draw.pick(True, False):
        arguments["weight"] = draw.weight(classes, draw.pick(dtype, dtype, *DTYPES, torch.int64))
        if arguments["weight"].is_floating_point():
            wanted += draw.pick((), ("weight",))
    arguments |= {"ignore_index": draw.pick(-100, -1, -7), "label_smoothing": draw.pick(0.0, 0.1, 1.0)}
    compare("cross_entropy", arguments | draw.reductions(), wanted)


@pytest.mark.parametrize("seed", range(800))
def test_nll_loss(seed: int) -> None:
    arguments = Draw(seed).indices()
    compare("nll_loss", arguments | {"input": -arguments["input"].abs()})


@pytest.mark.parametrize("seed", range(800))
def test_binary_cross_entropy_with_logits(seed: int) -> None:
    draw = Draw(seed)
    shape, dtype = draw.pick((), *SHAPES), draw.pick(*DTYPES)
    of = draw.pick(dtype, dtype, *DTYPES)
    # Beyond 1 the loss is a difference, and half types keep no digit of it.
    target = draw.uniform(shape, of, 0, 2 if dtype is of is torch.float64 else 1)
    arguments = {"input": draw.uniform(shape, dtype, -3, 3), "target": draw.pick(target, target.round())}
    for name in ("weight", "pos_weight"):
        if draw.pick(True, False):
            of = draw.pick((), shape[-1:], shape, tuple(draw.pick(1, n) for n in shape))
            arguments[name] = draw.weight(of, draw.pick(dtype, dtype, *DTYPES, torch.int64))
    wanted = draw.pick(("input",), ("target",), ("input", "target"))
    compare("binary_cross_entropy_with_logits", arguments | draw.reductions(), wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_inputs_that_pytorch_tests_its_own_losses_with(name: str, dtype: torch.dtype) -> None:
    """A third of them have negative weights."""
    pytest.importorskip("expecttest")
    from torch.testing._internal.common_methods_invocations import op_db

    (operator,) = (op for op in op_db if op.name == f"nn.functional.{name}")
    count = 0
    for sample in operator.sample_inputs("cpu", dtype, requires_grad=True):
        (target,) = sample.args
        arguments = {"input": sample.input, "target": target, **sample.kwargs}
        wanted = ("input", "target") if target.requires_grad else ("input",)
        arguments = {k: v.detach() if isinstance(v, Tensor) else v for k, v in arguments.items()}
        compare(name, arguments, wanted)
        count += any(is_floating(w) and bool((w < 0).any()) for w in map(sample.kwargs.get, ("weight", "pos_weight")))
    assert count


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_either_sign(name: str, reduction: str, dtype: torch.dtype) -> None:
    draw = Draw(11)
    weights = {"weight": torch.tensor([1, -2, 0.75], dtype=dtype)}
    base = {"input": draw.uniform((5, 3), dtype, -3, 3), "target": torch.tensor([0, 2, -100, 1, 2])}
    if name.startswith("binary"):
        base["target"], weights["weight"] = draw.uniform((5, 3), dtype), torch.tensor([3, -0.25, 2], dtype=dtype)
        compare(name, {**base, **weights, "pos_weight": torch.tensor([2, -3, 4], dtype=dtype), "reduction": reduction})
    elif name == "cross_entropy":
        compare(name, {**base, **weights, "label_smoothing": 0.1, "reduction": reduction})
        compare(name, {**base, **weights, "target": draw.uniform((5, 3), dtype), "reduction": reduction})
    compare(name, {**base, **weights, "reduction": reduction})
    if not name.startswith("binary"):  # a sum of weights below 0
        compare(name, {**base, **weights, "target": torch.tensor([1, 1, 0, 2, -100]), "reduction": reduction})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_combination_of_reductions(name: str, dtype: torch.dtype) -> None:
    draw = Draw(7)
    base = {"input": draw.uniform((5, 3), dtype, -3, 3), "target": torch.tensor([0, 2, -100, 1, 1])}
    if name.startswith("binary"):
        base["target"] = draw.uniform((5, 3), dtype)
    weights = (None, draw.uniform((3,), dtype, 0.5, 2))
    for weight, size_average, reduce, reduction in itertools.product(
        weights, (None, True, False), (None, True, False), (*REDUCTIONS, "unknown", None)
    ):
        options = {"size_average": size_average, "reduce": reduce, "reduction": reduction}
        compare(name, {**base, "weight": weight, **options})


def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype)


INDEX, LONG = torch.tensor([0, 2]), torch.int64
BOTH_REFUSE: dict[str, tuple[str, dict[str, Any]]] = {}
for _name in NAMES[:2]:
    _x = {"input": tensor(2, 3), "target": INDEX}
    BOTH_REFUSE |= {
        f"{_name}-{case}": (_name, _x | changed)
        for case, changed in {
            "target-too-large": {"target": torch.tensor([0, 3])},
            "target-negative": {"target": torch.tensor([0, -1])},
            "target-default-ignored-under-another": {"target": torch.tensor([0, -100]), "ignore_index": -1},
            "target-int32": {"target": INDEX.int()},
            "target-int16": {"target": INDEX.short()},
            "target-int8": {"target": INDEX.to(torch.int8)},
            "target-bool": {"target": INDEX.bool()},
            "target-float-index": {"target": INDEX.float()},
            "target-column": {"target": INDEX[:, None]},
            "target-short": {"target": INDEX[:1]},
            "target-scalar": {"target": INDEX[0]},
            "target-one-hot-int": {"target": tensor(2, 3, dtype=LONG)},
            "target-channels-last": {"input": tensor(2, 4, 3), "target": tensor(2, 4, dtype=LONG)},
            "input-int": {"input": tensor(2, 3, dtype=LONG)},
            "input-scalar": {"input": torch.tensor(1.0), "target": torch.tensor(0)},
            "input-list": {"input": [[1.0, 2, 3]]},
            "target-list": {"target": [0, 2]},
            "no-class": {"input": tensor(2, 0)},
            "weight-short": {"weight": tensor(2)},
            "weight-of-one": {"weight": tensor(1)},
            "weight-scalar": {"weight": torch.tensor(1.0)},
            "weight-2d": {"weight": tensor(1, 3)},
            "weight-float64": {"weight": tensor(3, dtype=torch.float64)},
            "weight-int": {"weight": tensor(3, dtype=LONG)},
            "weight-list": {"weight": [1.0, 2, 3]},
            "weight-requires-grad": {"weight": tensor(3).requires_grad_()},
            "reduction-unknown": {"reduction": "average"},
            "reduction-none": {"reduction": None},
            "ignore-index-none": {"ignore_index": None},
            "ignore-index-float": {"ignore_index": 1.5},
        }.items()
    }
_x = {"input": tensor(2, 3), "target": tensor(2, 3)}
BOTH_REFUSE |= {
    f"cross_entropy-{case}": ("cross_entropy", _x | changed)
    for case, changed in {
        "distribution-ignore-index": {"ignore_index": 1},
        "distribution-int": {"target": tensor(2, 3, dtype=LONG)},
        "distribution-bool": {"target": tensor(2, 3, dtype=torch.bool)},
        "distribution-broadcast": {"target": tensor(1, 3)},
        "distribution-int-input": {"input": tensor(2, 3, dtype=LONG)},
        "distribution-weight-short": {"weight": tensor(2)},
        "distribution-weight-2d": {"weight": tensor(1, 3)},
        "smoothing-above-1": {"label_smoothing": 1.01},
        "smoothing-above-1-index": {"target": INDEX, "label_smoothing": 1.01},
        "smoothing-text": {"label_smoothing": "0.1"},
        "smoothing-none": {"label_smoothing": None},
    }.items()
}
BOTH_REFUSE |= {
    f"binary-{case}": ("binary_cross_entropy_with_logits", _x | changed)
    for case, changed in {
        "target-shape": {"target": tensor(2)},
        "target-broadcast": {"target": tensor(2, 1)},
        "target-int": {"target": tensor(2, 3, dtype=LONG)},
        "target-bool": {"target": tensor(2, 3, dtype=torch.bool)},
        "input-int": {"input": tensor(2, 3, dtype=LONG)},
        "input-list": {"input": [[1.0]]},
        "weight-shape": {"weight": tensor(2)},
        "weight-larger": {"weight": tensor(1, 2, 3)},
        "pos-weight-shape": {"pos_weight": tensor(2)},
        "pos-weight-larger": {"pos_weight": tensor(1, 2, 3)},
        "pos-weight-list": {"pos_weight": [1.0, 1, 1]},
        "weight-requires-grad": {"weight": tensor(3).requires_grad_()},
        "pos-weight-requires-grad": {"pos_weight": tensor(3).requires_grad_()},
        "reduction-unknown": {"reduction": "average"},
    }.items()
}


@pytest.mark.parametrize("case", BOTH_REFUSE)
def test_what_torch_refuses_is_refused(case: str) -> None:
    name, arguments = BOTH_REFUSE[case]

    def call(function: Callable[..., Tensor]) -> None:
        function(**arguments | {"input": as_leaf(arguments["input"])}).sum()

    with pytest.raises((ValueError, TypeError, RuntimeError, IndexError, AttributeError, AssertionError)):
        call(getattr(F, name))
    with pytest.raises((ValueError, TypeError), match=r"`[a-z_]+` must "):
        call(getattr(cwt, name))


def as_leaf(x: Any) -> Any:
    return x.detach().clone().requires_grad_() if is_floating(x) else x


NAN, INF = float("nan"), float("inf")
ONLY_WE_REFUSE = {
    **{
        f"{name}-weight-{bad}": (name, {"weight": torch.tensor([1, 1, bad])}, "weight", "torch-invalid-weights")
        for name in NAMES
        for bad in (-INF, NAN, INF)
    },
    **{
        f"pos-weight-{bad}": (NAMES[2], {"pos_weight": torch.tensor([1, 1, bad])}, "weight", "torch-invalid-weights")
        for bad in (-INF, NAN, INF)
    },
    **{
        f"smoothing-{bad}": (NAMES[0], {"label_smoothing": bad}, "label_smoothing", "torch-invalid-smoothing")
        for bad in (-0.1, NAN)
    },
    "negative-target": (NAMES[0], {"target": -tensor(2, 3)}, "target", "torch-invalid-targets"),
    "binary-target-negative": (NAMES[2], {"target": -tensor(2, 3)}, "target", "torch-invalid-targets"),
}


@pytest.mark.parametrize("case", ONLY_WE_REFUSE)
def test_what_only_the_drop_in_refuses_is_a_named_difference(case: str) -> None:
    name, changed, word, difference = ONLY_WE_REFUSE[case]
    assert difference in IDS
    arguments = {"input": tensor(2, 3), "target": tensor(2, 3) if name == NAMES[2] else INDEX, **changed}
    getattr(F, name)(**arguments)
    with pytest.raises(ValueError, match=rf"`\w*{word}\w*` must "):
        getattr(cwt, name)(**arguments)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_have_the_native_order_and_defaults(name: str) -> None:
    def plain(function: Any) -> list[tuple[str, Any, Any]]:
        return [(p.name, p.default, p.kind) for p in inspect.signature(function).parameters.values()]

    assert plain(getattr(cwt, name)) == plain(getattr(F, name))


def test_positional_arguments() -> None:
    x, w, b = torch.randn(4, 3, generator=torch.manual_seed(0)), torch.tensor([1.0, 2, 3]), tensor(4, 3) / 2
    t = torch.tensor([0, 1, 2, 1])
    for name, *arguments in [
        ("cross_entropy", t, w, None, 1, None, "sum", 0.1),
        ("nll_loss", t, w, False, 2, True, "mean"),
        ("binary_cross_entropy_with_logits", b, w, None, False, "mean", w + 1),
    ]:
        torch.testing.assert_close(getattr(cwt, name)(x, *arguments), getattr(F, name)(x, *arguments))


CONSTRUCTED = [
    ("CrossEntropyLoss", {}),
    ("CrossEntropyLoss", {"weight": torch.tensor([1.0, 2, 5]), "label_smoothing": 0.1, "ignore_index": 1}),
    ("CrossEntropyLoss", {"size_average": False}),
    ("CrossEntropyLoss", {"reduce": False}),
    ("NLLLoss", {"weight": torch.tensor([1.0, 2, 5]), "reduction": "sum"}),
    ("NLLLoss", {}),
    ("BCEWithLogitsLoss", {}),
    ("BCEWithLogitsLoss", {"weight": torch.tensor([1.0, 2, 5]), "pos_weight": torch.tensor([3.0, 1, 1])}),
    ("BCEWithLogitsLoss", {"reduction": "none", "pos_weight": torch.tensor(2.0)}),
]


@pytest.mark.parametrize(("name", "arguments"), CONSTRUCTED)
class TestModules:
    def pair(self, name: str, arguments: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
        return getattr(nn, name)(**arguments), getattr(cwt, name)(**arguments)

    def batch(self, name: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
        return x, x.sin().abs() if name.startswith("BCE") else torch.tensor([0, 1, 2, 0])

    def test_value_and_repr(self, name: str, arguments: dict[str, Any]) -> None:
        native, ours = self.pair(name, arguments)
        x, t = self.batch(name)
        torch.testing.assert_close(ours(x, t), native(x, t))
        assert repr(ours) == repr(native)
        assert isinstance(ours, type(native))

    def test_state_goes_both_ways(self, name: str, arguments: dict[str, Any]) -> None:
        native, ours = self.pair(name, arguments)
        assert list(ours.state_dict()) == list(native.state_dict())
        doubled = {key: 2 * value for key, value in native.state_dict().items()}
        ours.load_state_dict(doubled)
        native.load_state_dict(ours.state_dict())
        x, t = self.batch(name)
        torch.testing.assert_close(ours(x, t), native(x, t))

    def test_copies_and_pickles(self, name: str, arguments: dict[str, Any]) -> None:
        _, ours = self.pair(name, arguments)
        x, t = self.batch(name)
        ours(x, t)
        for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert torch.equal(other(x, t), ours(x, t))
            assert repr(other) == repr(ours)

    def test_weights_follow_to(self, name: str, arguments: dict[str, Any]) -> None:
        native, ours = (module.to(torch.float64) for module in self.pair(name, arguments))
        x, t = self.batch(name, torch.float64)
        assert all(buffer.dtype == torch.float64 for buffer in ours.buffers())
        torch.testing.assert_close(ours(x, t), native(x, t))


@pytest.mark.parametrize("name", MODULES)
def test_constructors_are_the_native_ones(name: str) -> None:
    assert inspect.signature(getattr(cwt, name)) == inspect.signature(getattr(nn, name))


def test_modules_refuse_what_only_we_refuse() -> None:
    with pytest.raises(ValueError, match="`weight` must be finite"):
        cwt.CrossEntropyLoss(weight=torch.tensor([1.0, -INF]))(tensor(1, 2), torch.tensor([0]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_autocast(name: str, half: torch.dtype, dtype: torch.dtype) -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    t = x.sin().abs() if name.startswith("binary") else torch.tensor([0, 1, 2, 0])
    with torch.autocast("cpu", half):
        compare(name, {"input": x, "target": t, "weight": torch.tensor([1, 2, 5]).to(dtype)})


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    soft = {"cross_entropy": [x.softmax(1)], "nll_loss": [], "binary_cross_entropy_with_logits": [x.sin().abs()]}[name]
    hard = [] if name.startswith("binary") else [torch.tensor([0, 1, -100, 2])]
    for t, reduction in itertools.product(soft + hard, ("mean", "sum")):

        def hessian(function: Any, t: Tensor = t, reduction: str = reduction) -> Tensor:
            w = torch.tensor([1.0, 2, 5], dtype=torch.float64)
            return torch.autograd.functional.hessian(lambda z: function(z.square() + z, t, w, reduction=reduction), x)

        got, expected = hessian(getattr(cwt, name)), hessian(getattr(F, name))
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_layouts(name: str) -> None:
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(3)).transpose(1, 2)[:, ::2]
    t = torch.ones(3, 5, dtype=LONG) if not name.startswith("binary") else x.sin().abs()
    for input in (x, x[:1].expand(3, -1, -1), x[:, :, :1].expand(-1, -1, 5)):
        compare(name, {"input": input, "target": t})
    image = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    t = torch.ones(2, 4, 4, dtype=LONG) if not name.startswith("binary") else image.sin().abs()
    if name == "nll_loss":
        assert "torch-nll-channels-last" in IDS
        with pytest.raises(RuntimeError, match="grad_input must be contiguous"):
            F.nll_loss(image.requires_grad_(), t).backward()
        expected = F.nll_loss(image.detach().contiguous(), t)
        torch.testing.assert_close(cwt.nll_loss(image, t).detach(), expected)
        return
    compare(name, {"input": image, "target": t})


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("cross_entropy", "cross_entropy"),
        ("nll_loss", "nll_loss"),
        ("binary_cross_entropy_with_logits", "binary_cross_entropy_with_logits"),
        ("CrossEntropyLoss", "cross_entropy"),
        ("NLLLoss", "nll_loss"),
        ("BCEWithLogitsLoss", "binary_cross_entropy_with_logits"),
    ],
)
def test_help_says_what_differs_from_native(name: str, call: str) -> None:
    check_help("torch", getattr(cwt, name), call)
