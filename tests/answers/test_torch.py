"""Numbers that torch gives, and the cause that is named for each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from classweight import identify

from .surprises import (
    IGNORED,
    LARGE_T,
    LARGE_W,
    LARGE_Z,
    NOTHING,
    ONE_HOT,
    SUMMED_MEANS,
    T,
    W,
    Y,
    Z,
    assert_named,
    np,
)

z, t, w, y = (torch.tensor(x) for x in (Z, T, W, Y))
w = w.double()
ONE_HOT_CALL = "torch.cross_entropy(soft_targets=True, weight=w)"


def ce(logits: Any = z, targets: Any = t, weight: Any = None, **arguments: Any) -> float:
    arrays = (torch.as_tensor(x) for x in (logits, targets))
    return float(F.cross_entropy(*arrays, None if weight is None else torch.as_tensor(weight), **arguments))


def test_row_1_labels_and_weights() -> None:
    assert_named(ce(weight=w), "torch.cross_entropy(weight=w)", class_weight=W)
    assert_named(f"{ce(weight=w):.4f}", "torch.cross_entropy(weight=w)", class_weight=W)


def test_row_2_one_hot_targets_are_averaged_over_rows() -> None:
    loss = ce(targets=ONE_HOT, weight=w)
    assert_named(loss, ONE_HOT_CALL, class_weight=W)
    assert_named(loss, ONE_HOT_CALL, targets=ONE_HOT, class_weight=W)


def test_row_3_soft_targets_are_weighted_inside_the_sum() -> None:
    assert_named(ce(targets=y, weight=w), ONE_HOT_CALL, targets=Y, class_weight=W)


@pytest.mark.parametrize("said", [{"label_smoothing": 0.1}, {}], ids=["said", "unsaid"])
def test_row_4_smoothing(said: dict[str, float]) -> None:
    text = ", label_smoothing=0.1" if said else ""
    changes = () if said else ("label_smoothing=0.1",)
    loss = ce(weight=w, label_smoothing=0.1)
    assert_named(loss, f"torch.cross_entropy(weight=w{text})", *changes, class_weight=W, **said)
    soft = ce(targets=ONE_HOT, weight=w, label_smoothing=0.1)
    call = f"torch.cross_entropy(soft_targets=True, weight=w{text})"
    assert_named(soft, call, *changes, class_weight=W, **said)


def test_rows_5_and_6_an_ignored_row() -> None:
    loss = ce(targets=IGNORED, ignore_index=-1)
    assert_named(loss, "torch.cross_entropy(ignore_index=-1)", targets=IGNORED, ignore_index=-1)
    loss = ce(targets=IGNORED, weight=w, ignore_index=-1)
    call = "torch.cross_entropy(weight=w, ignore_index=-1)"
    assert_named(loss, call, targets=IGNORED, ignore_index=-1, class_weight=W)


def test_row_7_nothing_left_is_nan() -> None:
    loss = ce(targets=NOTHING, ignore_index=-1)
    answer = assert_named(loss, "torch.cross_entropy(ignore_index=-1)", targets=NOTHING, ignore_index=-1)
    assert not any(call.startswith("keras") and "sample" not in call for m in answer.best for call in m.calls)


def test_row_12_an_infinite_logit_of_a_one_hot_target_is_nan() -> None:
    logits, targets = np.array([[0, -np.inf, 1]]), np.array([[1.0, 0, 0]])
    change = "0 times infinity or NaN computed as it stands"
    call = "torch.cross_entropy(soft_targets=True)"
    assert_named(ce(logits, targets), call, change, logits=logits, targets=targets)


def test_row_13_a_wide_gap_is_the_loss() -> None:
    logits = np.array([[1e4, 0, -1e4]])
    assert_named(ce(logits, [2]), "torch.cross_entropy()", logits=logits, targets=[2])


def test_row_21_a_float16_sum_overflows() -> None:
    logits, targets = np.tile(np.float16([20, 0]), (8192, 1)), np.ones(8192, int)
    loss = ce(logits, targets)
    assert np.isinf(loss)
    change = "the sum overflows float16, whose largest number is 65504"
    assert_named(loss, "torch.cross_entropy()", change, logits=logits, targets=targets)


def test_row_22_bfloat16_holds_its_own_rounding() -> None:
    loss = F.cross_entropy(z[:1].bfloat16(), t[:1])
    answer = identify(loss, Z[:1], T[:1])
    assert "torch.cross_entropy()" in answer.best[0].calls
    assert "torch.cross_entropy()" in identify(loss, z[:1].bfloat16(), t[:1]).best[0].calls
    assert not identify(f"{float(loss)}", Z[:1], T[:1]).matches


class TestMistakes:
    """What goes wrong around a call."""

    def test_softmax_before_the_loss(self) -> None:
        change = "softmax applied twice: probabilities taken for logits"
        assert_named(ce(z.softmax(-1), weight=w), "torch.cross_entropy(weight=w)", change, class_weight=W)

    def test_probabilities_handed_in_as_such(self) -> None:
        p = z.softmax(-1)
        change = "softmax applied twice: probabilities taken for logits"
        assert_named(ce(p), "torch.cross_entropy()", change, logits=p.numpy(), inputs="probs")

    def test_no_log_softmax(self) -> None:
        change = "logits taken for log-probabilities: no log_softmax"
        assert_named(F.nll_loss(z, t), "torch.nll_loss()", change)

    def test_no_logarithm(self) -> None:
        change = "probabilities taken for log-probabilities: no logarithm"
        assert_named(float(F.nll_loss(z.softmax(-1), t)), "torch.nll_loss()", change)

    def test_weights_forgotten(self) -> None:
        answer = identify(ce(), Z, T, class_weight=W)
        assert ("class weights not applied",) in [match.changes for match in (*answer.best, *answer.others)]

    def test_weights_applied_twice(self) -> None:
        loss = ce(weight=w**2)
        assert_named(loss, "torch.cross_entropy(weight=w)", "class weights applied twice", class_weight=W)

    def test_padding_counted(self) -> None:
        mask = np.array([True, True, False, True])
        change = "the mask not applied: padding counts"
        assert_named(ce(weight=w), "torch.cross_entropy(weight=w)", change, class_weight=W, mask=mask)

    def test_a_padding_label_ignored(self) -> None:
        assert_named(ce(weight=w, ignore_index=0), "torch.cross_entropy(weight=w)", "label 0 ignored", class_weight=W)

    def test_base_2(self) -> None:
        loss = ce(weight=w) / np.log(2)
        assert_named(loss, "torch.cross_entropy(weight=w)", "the logarithm to base 2", class_weight=W)

    def test_the_mean_of_a_weighted_loss_per_row(self) -> None:
        loss = float(F.cross_entropy(z, t, w, reduction="none").mean())
        assert_named(loss, ONE_HOT_CALL, class_weight=W)


class TestPieces:
    """Means of means."""

    batch: dict[str, Any] = {"logits": LARGE_Z, "targets": LARGE_T, "class_weight": LARGE_W}  # noqa: RUF012
    call = "torch.cross_entropy(weight=w)"

    def pieces(self, *indices: Any) -> list[float]:
        return [ce(LARGE_Z[i], LARGE_T[i], LARGE_W) for i in indices]

    def test_gradient_accumulation(self) -> None:
        means = self.pieces(*np.split(np.arange(96), 4))
        assert_named(np.mean(means), self.call, "the mean of the means of 4 micro-batches of 24", **self.batch)

    def test_the_last_micro_batch_is_smaller(self) -> None:
        means = self.pieces(slice(0, 41), slice(41, 82), slice(82, 96))
        answer = identify(np.mean(means), **self.batch)
        assert not answer.matches
        means = self.pieces(*(slice(k, k + 20) for k in range(0, 96, 20)))
        change = "the mean of the means of micro-batches of 20, the last of 16"
        assert_named(np.mean(means), self.call, change, **self.batch)

    def test_replicas_that_take_samples_in_turn(self) -> None:
        means = self.pieces(*(slice(r, None, 3) for r in range(3)))
        change = "the mean of the means of 3 replicas that take samples in turn"
        assert_named(np.mean(means), self.call, change, **self.batch)

    def test_a_sum_of_means(self) -> None:
        loss = ce(z[:2], t[:2], w) + ce(z[2:], t[2:], w)
        assert_named(loss, self.call, SUMMED_MEANS, class_weight=W)


def test_a_float32_loss_is_held_to_its_rounding() -> None:
    logits, targets = torch.tensor(LARGE_Z).float(), torch.tensor(LARGE_T)
    loss = F.cross_entropy(logits, targets, torch.tensor(LARGE_W).float())
    for given in (loss, loss.numpy(), loss.item(), repr(loss.item())):
        assert_named(given, "torch.cross_entropy(weight=w)", logits=LARGE_Z, targets=LARGE_T, class_weight=LARGE_W)


@pytest.mark.parametrize("pos_weight", [None, 3.0])
def test_binary(pos_weight: float | None) -> None:
    targets = (LARGE_Z > 1).astype(float)
    weight = None if pos_weight is None else torch.tensor(pos_weight)
    loss = float(F.binary_cross_entropy_with_logits(torch.tensor(LARGE_Z), torch.tensor(targets), pos_weight=weight))
    given = {} if weight is None else {"class_weight": (1.0, pos_weight)}
    text = "" if weight is None else "pos_weight=w+"
    call = f"torch.binary_cross_entropy_with_logits({text})"
    assert_named(loss, call, logits=LARGE_Z, targets=targets, **given)
    twice = float(F.binary_cross_entropy_with_logits(torch.tensor(LARGE_Z).sigmoid(), torch.tensor(targets)))
    change = "sigmoid applied twice: probabilities taken for logits"
    name = "torch.binary_cross_entropy_with_logits()"
    assert_named(twice, name, change, logits=LARGE_Z, targets=targets)
