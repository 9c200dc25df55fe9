"""What is said of a number: exact or nearest, how sure, and what would make it surer. NumPy only."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from classweight import identify
from classweight.answers.batch import make_batch
from classweight.answers.identify import _by_chance, _distinct, read_loss
from classweight.answers.search import Search

from .surprises import LARGE_T, LARGE_W, LARGE_Z, S, T, W, Y, Z, assert_named

L = -np.log(np.exp(Z) / np.exp(Z).sum(-1, keepdims=True))
ROWS = L[np.arange(4), T]
TORCH = (np.array(W)[T] * ROWS).sum() / 10
KERAS = (np.array(W)[T] * ROWS).mean()


class TestDigits:
    """A match rounds to the digits given."""

    @pytest.mark.parametrize("digits", range(3, 15))
    def test_more_digits_leave_the_same_call(self, digits: int) -> None:
        assert_named(f"{TORCH:.{digits}f}", "torch.cross_entropy(weight=w)", class_weight=W)

    @pytest.mark.parametrize("step", [-1, 1])
    def test_the_next_number_is_another(self, step: int) -> None:
        assert not identify(f"{TORCH + step * 1e-5:.5f}", Z, T, class_weight=W).matches

    def test_trailing_zeros_are_digits(self) -> None:
        loss = identify("0.2000", Z, T).loss
        assert (loss.low, loss.high) == (pytest.approx(0.19995, rel=1e-6), pytest.approx(0.20005, rel=1e-6))

    def test_float64_digits_are_held_to_float64(self) -> None:
        assert identify(TORCH, Z, T, class_weight=W).matches
        assert not identify(TORCH * (1 + 1e-10), Z, T, class_weight=W).matches
        assert identify(np.float32(TORCH), Z, T, class_weight=W).matches

    def test_weights_of_either_sign_are_weights(self) -> None:
        w = np.array([1, -2, 0.5])
        number = (w[T] * ROWS).sum() / w[T].sum()
        assert_named(f"{number:.6f}", "torch.cross_entropy(weight=w)", class_weight=w.tolist())

    @pytest.mark.parametrize("loss", ["", "abc", "1,5", None, True, [1.0], "1e"])
    def test_what_is_no_number_is_refused(self, loss: Any) -> None:
        with pytest.raises(ValueError, match="`loss` must be"):
            identify(loss, Z, T)

    def test_an_array_is_no_number(self) -> None:
        with pytest.raises(ValueError, match="`loss` must be one number; got shape"):
            identify(np.ones(2), Z, T)

    def test_an_unknown_type_is_refused(self) -> None:
        with pytest.raises(ValueError, match="`dtype` must be one of"):
            identify("1", Z, T, dtype="int8")


class TestPaddle:
    """Paddle has no page of its own: its weights are outside the sum over classes, and divide it."""

    def test_row_3_soft_targets(self) -> None:
        weights = (Y * W).sum(-1)
        loss = (weights * (Y * L).sum(-1)).sum() / weights.sum()
        change = "divided by the sum of the weights"
        assert_named(loss, "tensorflow.weight_map(class_weight=w)", change, targets=Y, class_weight=W)

    def test_row_4_smoothing(self) -> None:
        smoothed = 0.9 * np.eye(3)[T] + 0.1 / 3
        weights = (smoothed * W).sum(-1)
        loss = (weights * (smoothed * L).sum(-1)).sum() / weights.sum()
        changes = ("class weights enter outside that sum", "divided by the weights of the smoothed targets")
        call = "torch.cross_entropy(weight=w, label_smoothing=0.1)"
        assert_named(loss, call, *changes, class_weight=W, label_smoothing=0.1)

    def test_row_5_ignored_rows_are_counted(self) -> None:
        targets = [0, 1, -100, 2]
        loss = (L[0, 0] + L[1, 1] + L[3, 2]) / 4
        assert_named(loss, "torch.cross_entropy()", "divided by the number of all rows", targets=targets)

    def test_row_13_gaps_are_clipped(self) -> None:
        change = "-log of a probability not above 64"
        assert_named("64.000", "torch.cross_entropy()", change, logits=[[1e4, 0, -1e4]], targets=[2])


class TestHonesty:
    """What is not known is said."""

    def test_nothing_matches(self) -> None:
        answer = identify("0.123456", Z, T, class_weight=W)
        assert not answer.matches and answer.by_chance is not None
        assert "No convention gives this number" in str(answer)
        distances = [match.off for match in answer.nearest if match.cost == 0]
        assert distances == sorted(distances)
        assert {match.cost for match in answer.nearest} == {0, 1, 2}

    def test_the_nearest_says_what_to_change(self) -> None:
        weights = np.array(W)[T]
        answer = identify(
            f"{1.003 * (weights * weights * ROWS).sum() / (weights * weights).sum():.7f}", Z, T, class_weight=W
        )
        assert ("class weights applied twice",) in [match.changes for match in answer.nearest]

    def test_several_calls_cannot_be_told_apart(self) -> None:
        answer = assert_named(f"{KERAS:.6f}", "chainer.softmax_cross_entropy(class_weight=w)", class_weight=W)
        assert {"an ignored row", "soft targets or label smoothing", "a row of weight 0"} <= set(answer.told_apart_by)
        assert "cannot tell these apart" in str(answer)

    def test_what_was_named_does_tell_them_apart(self) -> None:
        mask, weights = np.array([True, True, True, False]), np.array(W)[Y.argmax(-1)]
        by_label = (weights * (Y * L).sum(-1))[:3].sum() / 3
        answer = identify(by_label, Z, Y, class_weight=W, mask=mask)
        assert {call.partition(".")[0] for match in answer.best for call in match.calls} == {"keras", "tensorflow"}

    def test_a_single_digit_is_too_few(self) -> None:
        answer = identify("0.3", LARGE_Z, LARGE_T, class_weight=LARGE_W)
        assert answer.by_chance is not None and answer.by_chance > 0.5
        assert "Too few digits" in str(answer)

    def test_random_numbers_match_as_often_as_is_said(self) -> None:
        batch = make_batch(LARGE_Z, LARGE_T, class_weight=LARGE_W)
        values = _distinct([c.value for c in Search(batch).candidates()])
        said = got = 0.0
        for number in np.random.default_rng(5).uniform(0.5, 5, 4000):
            loss = read_loss(f"{number:.4f}", batch)
            said += _by_chance(loss, values) or 0.0
            got += np.count_nonzero((loss.low <= values) & (values <= loss.high))
        assert 0.7 * got < said < 1.5 * got

    def test_other_calls_are_told_what_makes_them_this_number(self) -> None:
        answer = identify(f"{KERAS:.6f}", Z, T, class_weight=W)
        others = {call: match.changes for match in answer.others for call in match.calls}
        assert others["torch.cross_entropy(weight=w)"]
        assert all(match.cost == 1 for match in answer.others)

    def test_no_row_has_two_names(self) -> None:
        for loss in (TORCH, KERAS, KERAS / np.log(2), TORCH * 1.01):
            answer = identify(loss, Z, T, class_weight=W, sample_weight=S)
            names = [(match.value, match.changes) for match in (*answer.matches, *answer.others)]
            assert len(set(names)) == len(names)


def test_json_holds_the_answer() -> None:
    for loss in (f"{KERAS:.6f}", "0.123456", "nan", "inf"):
        found = identify(loss, Z, T, class_weight=W).to_json()
        assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_an_empty_batch_has_its_conventions() -> None:
    answer = identify("nan", np.zeros((0, 3)), np.zeros(0, int))
    assert "torch.cross_entropy()" in answer.best[0].calls


def test_one_position_without_a_batch_axis() -> None:
    assert_named(ROWS[0], "torch.cross_entropy()", logits=Z[0], targets=0)
