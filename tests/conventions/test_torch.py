"""torch's own functions against their conventions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from classweight import conventions
from classweight.adapters import numpy as cwn
from classweight.reference import reference
from classweight.spec import SoftmaxCrossEntropy

from .configurations import COUNT, SHAPES, assert_same, batch, binary_batch, upstream
from .differences import Shown, named

SHAPES = [(), *SHAPES, (0,), (0, 2)]
pytestmark = pytest.mark.filterwarnings("ignore:.*reduction=:UserWarning")
shows = Shown("torch")
cases = pytest.mark.parametrize("case", range(COUNT))


def native(function: Any, logits: Any, targets: Any, **arguments: Any) -> tuple[Any, Any]:
    """Return torch's loss and gradient."""
    z = torch.tensor(logits, requires_grad=True)
    tensors = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    loss = function(z, torch.tensor(targets), **tensors)
    assert loss.dtype == z.dtype
    loss.backward(torch.tensor(upstream(tuple(loss.shape), str(logits.dtype))))
    return loss.detach().numpy(), z.grad.numpy()


def reductions(b: Any) -> dict[str, Any]:
    """Return a reduction, the deprecated arguments in a third of the cases."""
    legacy = {"size_average": b.pick(None, True, False), "reduce": b.pick(None, True, False)}
    return b.pick(*({"reduction": r} for r in ("mean", "sum", "none", "elementwise_mean")), legacy, legacy)


def without_weights(spec: SoftmaxCrossEntropy, b: Any, index: int) -> bool:
    """Whether rows are left and all of them weigh 0."""
    kept = b.labels[b.marked(index) != index]
    return spec.class_weight is not None and kept.size > 0 and not b.class_weight[kept].any()


@cases
def test_cross_entropy_of_indices(case: int) -> None:
    b = batch(case, shapes=SHAPES)
    index = b.pick(-100, -1, 255, 0)
    arguments = {"weight": b.pick(None, b.class_weight), "ignore_index": index, "label_smoothing": b.smoothing}
    arguments |= reductions(b)
    spec = conventions.torch.cross_entropy(**arguments)
    targets = b.marked(index)
    loss, gradient = native(F.cross_entropy, b.logits, targets, **arguments)
    if spec.reduction == "mean_over_weights" and without_weights(spec, b, index):
        assert named("torch-zero-weight-mean-gradient")
        gradient = None
    assert_same((loss, gradient), spec, b.logits, targets)


@cases
def test_cross_entropy_of_distributions(case: int) -> None:
    b = batch(case, shapes=SHAPES)
    arguments = {"weight": b.pick(None, b.class_weight), "label_smoothing": b.smoothing, **reductions(b)}
    arguments["ignore_index"] = b.pick(-100, -7)
    targets = b.distributions(normalised=False)
    spec = conventions.torch.cross_entropy(**arguments, soft_targets=True)
    assert_same(native(F.cross_entropy, b.logits, targets, **arguments), spec, b.logits, targets)


@cases
def test_nll_loss(case: int) -> None:
    b = batch(case, shapes=SHAPES)
    index = b.pick(-100, -1, 255, 0)
    arguments = {"weight": b.pick(None, b.class_weight), "ignore_index": index, **reductions(b)}
    spec = conventions.torch.nll_loss(**arguments)
    targets = b.marked(index)
    loss, gradient = native(F.nll_loss, b.logits, targets, **arguments)
    if spec.reduction == "mean_over_weights" and without_weights(spec, b, index):
        assert named("torch-zero-weight-mean-gradient")
        gradient = None
    assert_same((loss, gradient), spec, b.logits, targets)


@cases
def test_binary_cross_entropy_with_logits(case: int) -> None:
    b = binary_batch(case, shapes=[*SHAPES, (0, 2)])
    arguments = {"pos_weight": b.pick(None, b.pos_weight), **reductions(b)}
    weight, targets = b.pick(None, b.weight), b.targets()
    spec = conventions.torch.binary_cross_entropy_with_logits(**arguments)
    got = native(F.binary_cross_entropy_with_logits, b.logits, targets, weight=weight, **arguments)
    assert_same(got, spec, b.logits, targets, weight)


def torch_rows(logits: Any, targets: Any, **arguments: Any) -> tuple[Any, Any]:
    return native(F.cross_entropy, np.asarray(logits), np.asarray(targets), **arguments)


def our_rows(logits: Any, targets: Any, **arguments: Any) -> tuple[Any, Any]:
    soft = np.ndim(logits) == np.ndim(targets)
    return reference(conventions.torch.cross_entropy(**arguments, soft_targets=soft), logits, targets)


@shows("torch-zero-weight-mean-gradient")
def zero_weight_mean_gradient() -> None:
    batch = [[2.0, -1, 0.5], [0, 1, -2]], [0, 0]
    loss, gradient = torch_rows(*batch, weight=np.array([0.0, 1, 1]))
    assert np.isnan(loss) and np.isnan(gradient).all()
    loss, gradient = our_rows(*batch, weight=[0, 1, 1])
    assert np.isnan(loss) and not gradient.any()


@shows("torch-cancelled-weights")
def cancelled_weights() -> None:
    batch = [[2.0, -1, 0.5], [0, 1, -2]], [0, 1]
    loss, gradient = torch_rows(*batch, weight=np.array([-1.0, 1, 0.5]))
    assert np.isinf(loss) and not np.isfinite(gradient).any()
    loss, gradient = our_rows(*batch, weight=[-1, 1, 0.5])
    assert np.isnan(loss) and not gradient.any()


@shows("torch-ignored-nan-gradient")
def ignored_nan_gradient() -> None:
    for bad in (np.nan, np.inf):
        batch = [[2.0, -1, 0.5], [bad, 1, -2]], [0, -100]
        loss, gradient = torch_rows(*batch)
        assert np.isfinite(loss) and np.isfinite(gradient[0]).all() and np.isnan(gradient[1]).any()
        ours, our_gradient = our_rows(*batch)
        assert ours == pytest.approx(loss, rel=1e-14) and not our_gradient[1].any()


@shows("torch-zero-weight-nan")
def zero_weight_nan() -> None:
    batch = [[2.0, -1, 0.5], [np.nan, 1, -2]], [0, 1]
    assert np.isnan(torch_rows(*batch, weight=np.array([1.0, 0, 1]))[0])
    assert our_rows(*batch, weight=[1, 0, 1])[0] == pytest.approx(0.2413113, rel=2e-7)


@shows("torch-zero-times-infinity")
def zero_times_infinity() -> None:
    batch = [[0, -np.inf, 1]], [[1.0, 0, 0]]
    assert np.isnan(torch_rows(*batch)[0])
    assert our_rows(*batch)[0] == pytest.approx(1.3132616, rel=1e-7)
    batch = [[0, -np.inf, 1], [0.0, 1, -2]], [1, 0]
    assert np.isnan(torch_rows(*batch, weight=np.array([1.0, 0, 1]))[0])
    assert np.isfinite(our_rows(*batch, weight=[1, 0, 1])[0])
    got, _ = native(F.binary_cross_entropy_with_logits, np.array([np.inf, -np.inf]), np.array([1.0, 0]))
    assert np.isnan(got)
    spec = conventions.torch.binary_cross_entropy_with_logits()
    assert reference(spec, [np.inf, -np.inf], [1.0, 0])[0] == 0


@shows("torch-confident-rounding")
def confident_rounding() -> None:
    logits = np.array([[18, 0]], np.float32)
    loss, gradient = torch_rows(logits, [0])
    assert loss == 0 and gradient[0, 0] == 0
    loss, gradient = our_rows(logits, [0])
    assert loss == pytest.approx(np.log1p(np.exp(-18)), rel=1e-12)
    assert -gradient[0, 0] == pytest.approx(1 / (1 + np.exp(18)), rel=1e-12)
    _, gradient = native(F.binary_cross_entropy_with_logits, np.array([18], np.float32), np.ones(1, np.float32))
    assert gradient[0] == 0


@shows("torch-half-accumulation")
def half_accumulation() -> None:
    logits = np.tile(np.array([[0, 20]], np.float16), (8192, 1))
    labels = np.zeros(8192, np.int64)
    assert np.isinf(torch_rows(logits, labels)[0])
    assert our_rows(logits, labels)[0] == pytest.approx(20, rel=1e-9)


@shows("torch-uint8-targets")
def uint8_targets() -> None:
    z, labels = np.array([[[2.0], [-1], [0.5]]]), np.array([[0]], np.uint8)
    for function in (F.cross_entropy, F.nll_loss):
        with pytest.raises(RuntimeError, match="found Byte"):
            native(function, z, labels)
    with pytest.raises(RuntimeError, match="Expected dtype int32/int64 for index"):
        torch_rows(z[..., 0], labels[0], weight=np.ones(3), label_smoothing=0.1)
    assert our_rows(z, labels)[0] == our_rows(z, labels.astype(np.int64))[0] == pytest.approx(0.2413113, rel=2e-7)


@shows("torch-nll-channels-last")
def nll_channels_last() -> None:
    image = -torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    labels = torch.ones(2, 4, 4, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="grad_input must be contiguous"):
        F.nll_loss(image, labels).backward()
    gradient = reference(conventions.torch.nll_loss(), image.detach(), labels)[1]
    assert (gradient[:, 1] == -1 / 32).all() and not gradient[:, ::2].any()


@shows("torch-invalid-weights")
def invalid_weights() -> None:
    for bad in (np.nan, np.inf):
        torch_rows([[2.0, -1, 0.5]], [1], weight=np.array([1, 1, bad]))
        with pytest.raises(ValueError, match="`weight` must be a finite number"):
            conventions.torch.cross_entropy([1, 1, bad])


@shows("torch-invalid-smoothing")
def invalid_smoothing() -> None:
    for bad in (-0.5, np.nan):
        assert torch_rows([[2.0, -1]], [1], label_smoothing=bad)[0] == torch_rows([[2.0, -1]], [1])[0]
        with pytest.raises(ValueError, match="`label_smoothing` must be a number from 0 to 1"):
            conventions.torch.cross_entropy(label_smoothing=bad)


@shows("torch-invalid-targets")
def invalid_targets() -> None:
    logits, targets = np.array([[2.0, -1]]), np.array([[1.5, -0.5]])
    for function, spec in [
        (F.cross_entropy, conventions.torch.cross_entropy(soft_targets=True)),
        (F.binary_cross_entropy_with_logits, conventions.torch.binary_cross_entropy_with_logits()),
    ]:
        assert np.isfinite(native(function, logits, targets)[0])
        with pytest.raises(ValueError, match="`targets` must"):
            cwn.loss(spec, logits, targets)


@pytest.mark.parametrize("difference", shows.ids)
def test_difference(difference: str) -> None:
    shows.checks[difference]()


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"reduction": "average"}, "`reduction` must be one of 'none', 'mean', 'sum', 'elementwise_mean'"),
            ({"reduction": None}, "`reduction` must be one of"),
            ({"label_smoothing": 1.5}, "`label_smoothing` must be a number from 0 to 1; got 1.5"),
            ({"ignore_index": 2, "soft_targets": True}, "`ignore_index` must be negative with distributions"),
        ],
    )
    def test_what_torch_refuses_is_refused(self, arguments: Any, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            conventions.torch.cross_entropy(**arguments)
        soft = arguments.pop("soft_targets", False)
        with pytest.raises((ValueError, RuntimeError)):
            F.cross_entropy(torch.zeros(1, 3), torch.ones(1, 3) / 3 if soft else torch.tensor([1]), **arguments)

    def test_ignore_index_is_an_int(self) -> None:
        with pytest.raises(TypeError, match="`ignore_index` must be an int; got None"):
            conventions.torch.nll_loss(ignore_index=None)
