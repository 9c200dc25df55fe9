"""The same nominal arguments, another number in each framework: the conventions give the published one.

The numbers were made by running the frameworks. NumPy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from classweight import conventions
from classweight.adapters import numpy as cwn
from classweight.reference import reference

torch, keras, tensorflow = conventions.torch, conventions.keras, conventions.tensorflow
chainer, sklearn, onnx, flax = conventions.chainer, conventions.sklearn, conventions.onnx, conventions.flax

Z = np.array([[2, -1, 0.5], [0, 1, -2], [0.5, 0.5, 3], [-1, 2, 0]])
T = np.array([0, 1, 2, 1])
W = [1, 2, 5]
S = np.array([1, 0.5, 2, 0])
Y = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.25, 0.25]])
ONE_HOT = np.eye(3)[T]
IGNORED = np.array([0, 1, -1, 2])
P = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)
MWSW, MEAN, PER_ELEMENT = "mean_with_sample_weight", "weighted_mean", "weighted_sum_over_batch_size"
KEPT = (IGNORED >= 0).astype(float)
ROWS = np.where(IGNORED >= 0, IGNORED, 0)


def sparse(**arguments: Any) -> Any:
    return keras.sparse_categorical_crossentropy(True, **arguments)


def dense(**arguments: Any) -> Any:
    return keras.categorical_crossentropy(True, **arguments)


def v1(*arguments: Any, **weights: Any) -> Any:
    return tensorflow.v1_softmax_cross_entropy(*arguments, **weights)


# fmt: off
NUMBERS = {
    "1-torch": (0.2039070, torch.cross_entropy(W), T),
    "1-onnx": (0.2039070, onnx.softmax_cross_entropy_loss(W), T),
    "1-sklearn": (0.2039070, sklearn.log_loss(class_weight=W), T),
    "1-flax": (0.2039070, flax.compute_weighted_cross_entropy(class_weight=W), T),
    "1-v1-mean": (0.2039070, v1(reduction=MEAN, class_weight=W), T),
    "1-keras-mwsw": (0.2039070, sparse(reduction=MWSW, class_weight=W), T),
    "1-chainer": (0.5097674, chainer.softmax_cross_entropy(class_weight=W), T),
    "1-keras-fit": (0.5097674, sparse(class_weight=W), T),
    "1-v1": (0.5097674, v1(class_weight=W), T),
    "1-weight-map": (0.5097674, tensorflow.weight_map(W), ONE_HOT),
    "2-torch": (0.5097674, torch.cross_entropy(W, soft_targets=True), ONE_HOT),
    "3-torch": (2.7833272, torch.cross_entropy(W, soft_targets=True), Y),
    "3-weight-map": (3.0658272, tensorflow.weight_map(W), Y),
    "3-keras-fit": (2.6048059, dense(class_weight=W), Y),
    "3-chainer-without-weights": (1.2655445, chainer.softmax_cross_entropy(soft_targets=True), Y),
    "4-torch": (0.3745077, torch.cross_entropy(W, label_smoothing=0.1), T),
    "4-torch-one-hot": (0.9362692, torch.cross_entropy(W, label_smoothing=0.1, soft_targets=True), ONE_HOT),
    "4-keras-fit": (0.9056008, dense(label_smoothing=0.1, class_weight=W), ONE_HOT),
    "4-v1": (0.9056008, v1(0.1, class_weight=W), ONE_HOT),
    "4-v1-mean": (0.3622403, v1(0.1, MEAN, class_weight=W), ONE_HOT),
    "4-keras-mwsw": (0.3622403, dense(label_smoothing=0.1, reduction=MWSW, class_weight=W), ONE_HOT),
    "5-torch": (0.9200565, torch.cross_entropy(ignore_index=-1), IGNORED),
    "5-keras": (0.9200565, sparse(ignore_class=-1), IGNORED),
    "5-chainer": (0.9200565, chainer.softmax_cross_entropy(), IGNORED),
    "5-onnx": (0.9200565, onnx.softmax_cross_entropy_loss(ignore_index=-1), IGNORED),
    "5-v1": (0.9200565, v1(), ROWS, KEPT),
    "5-chainer-batch": (0.6900424, chainer.softmax_cross_entropy(normalize=False), IGNORED),
    "5-v1-elements": (0.6900424, v1(reduction=PER_ELEMENT), ROWS, KEPT),
    "6-torch": (1.4735707, torch.cross_entropy(W, ignore_index=-1), IGNORED),
    "6-onnx": (1.4735707, onnx.softmax_cross_entropy_loss(W, -1), IGNORED),
    "6-keras-mwsw": (1.4735707, sparse(ignore_class=-1, reduction=MWSW, class_weight=W), IGNORED),
    "6-chainer": (3.9295219, chainer.softmax_cross_entropy(class_weight=W), IGNORED),
    "6-keras-fit": (3.9295219, sparse(ignore_class=-1, class_weight=W), IGNORED),
    "6-v1": (3.9295219, v1(class_weight=W), ROWS, KEPT),
    "6-chainer-batch": (2.9471415, chainer.softmax_cross_entropy(normalize=False, class_weight=W), IGNORED),
    "8-keras": (0.1799585, sparse(), T, S),
    "8-v1": (0.2399447, v1(), T, S),
    "8-sklearn": (0.2056669, sklearn.log_loss(), T, S),
    "8-v1-mean": (0.2056669, v1(reduction=MEAN), T, S),
    "8-keras-mwsw": (0.2056669, sparse(reduction=MWSW), T, S),
    "9-keras-2": (0.5276018, sparse(class_weight=W), T, S),
    "18-keras-true-mean": (0.2280445, sparse(reduction=MWSW), T, 2.0),
}
# fmt: on


@pytest.mark.parametrize("name", NUMBERS)
def test_published_number(name: str) -> None:
    number, spec, *batch = NUMBERS[name]
    logits = P if spec.inputs == "probs" else Z
    assert round(float(reference(spec, logits, *batch)[0]), 7) == number
    assert round(float(cwn.loss(spec, logits, *batch)), 7) == number


def test_row_7_all_ignored_is_nan_or_0() -> None:
    nothing = np.full(4, -1)
    for spec in (torch.cross_entropy(ignore_index=-1), onnx.softmax_cross_entropy_loss(ignore_index=-1)):
        assert np.isnan(reference(spec, Z, nothing)[0])
    for spec in (sparse(ignore_class=-1), chainer.softmax_cross_entropy()):
        assert reference(spec, Z, nothing)[0] == 0
    assert reference(v1(), Z, T, np.zeros(4))[0] == 0


def test_row_10_the_gradient_of_weighted_targets_is_exact() -> None:
    spec = torch.cross_entropy(reduction="sum", soft_targets=True)
    gradient = reference(spec, Z, Y * W)[1][0]
    assert gradient.round(7).tolist() == [0.5569553, -0.3374199, -0.2195354]


def test_row_11_a_target_of_zeros_has_no_gradient() -> None:
    for spec in (torch.cross_entropy(soft_targets=True), dense(), v1()):
        loss, gradient = reference(spec, Z[:1], np.zeros((1, 3)))
        assert loss == 0 and not gradient.any()


ONE_HOTS = [torch.cross_entropy(soft_targets=True), v1(), dense(), chainer.softmax_cross_entropy(soft_targets=True)]


@pytest.mark.parametrize("spec", ONE_HOTS)
def test_row_12_a_zero_target_of_an_infinite_term_adds_nothing(spec: Any) -> None:
    assert round(float(reference(spec, [[0, -np.inf, 1]], [[1.0, 0, 0]])[0]), 7) == 1.3132617


@pytest.mark.parametrize(
    "spec",
    [torch.cross_entropy(), v1(), sparse(), chainer.softmax_cross_entropy(), onnx.softmax_cross_entropy_loss()],
)
class TestIndices:
    def test_row_13_a_wide_gap_is_the_loss(self, spec: Any) -> None:
        assert reference(spec, [[1e4, 0, -1e4]], [2])[0] == 20000

    def test_rows_14_to_16_a_label_out_of_range_is_refused(self, spec: Any) -> None:
        for label in (-2, 3, -101):
            with pytest.raises(IndexError, match="`targets` must"):
                cwn.loss(spec, Z, [0, 1, label, 1])


def test_row_18_keras_divides_by_the_sum_of_what_it_was_given() -> None:
    loss = reference(sparse(reduction=MWSW), Z, T, 2.0, denominator=2.0)[0]
    assert round(float(loss), 7) == 0.9121779


def test_row_19_a_class_missing_from_keras_dict_weighs_1() -> None:
    spec = sparse(reduction="none", class_weight={0: 7, 1: 3})
    plain = reference(sparse(reduction="none"), Z, [0, 1, 2, 1])[0]
    np.testing.assert_allclose(reference(spec, Z, [0, 1, 2, 1])[0] / plain, [7, 3, 1, 3], rtol=1e-14)


def test_row_23_clipped_probabilities() -> None:
    p = np.array([[1.0, np.exp(-60)]])
    for spec in (keras.sparse_categorical_crossentropy(), keras.categorical_crossentropy()):
        targets = [1] if spec.renormalize == "after" else [[0.0, 1]]
        loss, gradient = reference(spec, p, targets)
        assert loss == pytest.approx(16.1180954, abs=5e-7)
        assert gradient[0, 1] == 0
