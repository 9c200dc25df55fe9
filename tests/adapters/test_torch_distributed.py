"""The denominator without logits is that of the loss, in every spec; and it is one number a group."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import classweight.adapters.torch as cwt
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.adapters.torch import distributed

GENERATOR = torch.Generator().manual_seed(0)
Z = torch.randn(6, 4, 5, generator=GENERATOR)
LABELS = torch.randint(4, (6, 5), generator=GENERATOR).where(torch.arange(30).reshape(6, 5) % 7 > 1, -100)
SHARES = torch.rand(6, 4, 5, generator=GENERATOR)
S = torch.tensor([0.5, 0, 2, -1, 1, 3])
MASK = torch.tensor([True, True, False, True, True, True])
W = [1.0, 2.0, 5.0, 0.5]
INDEX, DENSE = SoftmaxCrossEntropy(class_weight=W, ignore_index=-100), SoftmaxCrossEntropy(class_weight=W)
CALLS: dict[str, tuple[Any, Tensor, Tensor, dict[str, Any]]] = {
    "index": (INDEX, Z, LABELS, {}),
    "smoothed": (dataclasses.replace(INDEX, label_smoothing=0.1, weighting="expected"), Z, LABELS, {}),
    "classes-last": (dataclasses.replace(INDEX, axis=-1), Z.movedim(1, -1), LABELS, {}),
    "no-positions": (INDEX, Z[0, :, 0], torch.tensor(2), {}),
    "unweighted": (SoftmaxCrossEntropy(ignore_index=-100), Z, LABELS, {}),
    "weights-at-the-call": (SoftmaxCrossEntropy(ignore_index=-100), Z, LABELS, {"class_weight": torch.tensor(W)}),
    "mapping": (SoftmaxCrossEntropy(class_weight=dict(enumerate(W)), ignore_index=-100), Z, LABELS, {"num_classes": 4}),
    "distributions": (DENSE, Z, SHARES, {}),
    "label-of-distributions": (dataclasses.replace(DENSE, weighting="label"), Z, SHARES, {}),
    "bools": (DENSE, Z, SHARES > 0.5, {}),
    "binary": (SigmoidCrossEntropy(class_weight=(1, 3)), Z, SHARES, {}),
    "averaged": (SigmoidCrossEntropy(class_weight=(1, 3), average_outputs=True), Z, SHARES, {}),
}
MEANS = [f"mean_over_{what}" for what in ("weights", "valid", "positions", "batch", "nonzero")]


@pytest.mark.parametrize("reduction", MEANS)
@pytest.mark.parametrize("name", CALLS)
def test_it_is_what_the_loss_divides_by(name: str, reduction: str) -> None:
    spec, z, targets, options = CALLS[name]
    spec = dataclasses.replace(spec, reduction=reduction)
    given = {} if z.ndim == 1 else {"sample_weight": S, "mask": MASK}
    found = distributed.denominator(spec, targets, **given, **options)
    of_logits = {key: value for key, value in options.items() if key != "num_classes"}
    _, expected = cwt.loss_parts(spec, z, targets, **given, **of_logits)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_it_is_the_same_traced_and_without_values() -> None:
    expected = distributed.denominator(INDEX, LABELS, S)
    composite = torch.compile(lambda y: distributed.denominator(INDEX, y, S), backend="eager", fullgraph=True)
    torch.testing.assert_close(composite(LABELS), expected, rtol=1e-15, atol=0)
    assert distributed.denominator(INDEX, LABELS.to("meta"), S.to("meta")).shape == ()


def test_micro_batches_add_up() -> None:
    rows = [1, 3, 2]
    parts = [LABELS.split(rows), S.split(rows)]
    mask = MASK.split(rows)
    found = distributed.denominator(INDEX, *parts, mask=mask)
    torch.testing.assert_close(found, distributed.denominator(INDEX, LABELS, S, mask=MASK), rtol=1e-15, atol=0)
    found = distributed.denominator(INDEX, parts[0], 0.25)
    torch.testing.assert_close(found, distributed.denominator(INDEX, LABELS, 0.25), rtol=1e-15, atol=0)
    assert distributed.denominator(INDEX, [LABELS[:0]]) == 0


def test_no_gradient_flows_through_it() -> None:
    weight = torch.tensor(W, requires_grad=True)
    assert not distributed.denominator(SoftmaxCrossEntropy(), LABELS.clamp(0), class_weight=weight).requires_grad


@pytest.mark.parametrize(
    ("spec", "targets", "options", "words"),
    [
        (
            dataclasses.replace(INDEX, reduction="sum"),
            LABELS,
            {},
            "`spec` must have a mean as its reduction; got 'sum'",
        ),
        (INDEX, [], {}, "`targets` must be a tensor, or at least one; got none"),
        (INDEX, [1], {}, "`targets` must be a tensor, or a sequence of them; got int"),
        (INDEX, [LABELS], {"mask": []}, "`mask` must be one for each of the 1 targets; got 0"),
        (DENSE, LABELS, {}, r"`targets` must be class indices from 0 to 3; got -100 at position \(0, 0\)"),
        (INDEX, LABELS + 9, {}, r"`targets` must be class indices from 0 to 3; got .*"),
        (INDEX, LABELS, {"sample_weight": S[:3]}, r"`sample_weight` must be .*"),
        (INDEX, LABELS, {"num_classes": 3}, r"`class_weight` must have shape \(3,\), one per class; got \(4,\)"),
        (DENSE, LABELS, {"class_weight": 2.0}, r"`class_weight` must have shape .*"),
        (CALLS["mapping"][0], LABELS, {}, "`num_classes` must be given where class weights are a mapping; got None"),
        (dataclasses.replace(INDEX, axis=3), LABELS, {}, r"`axis` must be an axis of the logits.*"),
    ],
)
def test_what_does_not_fit_is_refused(spec: Any, targets: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{words}$"):
        distributed.denominator(spec, targets, **options)


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("average", [True, False])
def test_a_group_of_one_and_no_group_are_the_same(average: bool, group: None) -> None:
    expected = cwt.loss_parts(INDEX, Z, LABELS)[1]
    assert distributed.denominator(INDEX, LABELS, average=average) == expected
    assert distributed.denominator(INDEX, LABELS, average=average, async_op=True).wait() == expected


def test_without_a_group_a_future_is_there_too() -> None:
    assert distributed.denominator(INDEX, LABELS, async_op=True).wait() == cwt.loss_parts(INDEX, Z, LABELS)[1]


def test_processes_share_one_denominator(tmp_path: Path) -> None:
    script = Path(__file__).with_name("processes_torch.py")
    subprocess.run([sys.executable, "-W", "error", script, tmp_path / "store"], check=True)
