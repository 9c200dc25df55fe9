"""Numbers that scikit-learn gives, and the cause that is named for each."""

from __future__ import annotations

from sklearn.metrics import log_loss

from .surprises import LARGE_S, LARGE_T, LARGE_Z, S, T, W, Z, assert_named, np

P = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)


def test_row_1_weights_of_labels() -> None:
    loss = log_loss(T, P, sample_weight=np.array(W)[T], labels=range(3))
    assert_named(loss, "sklearn.log_loss(class_weight=w)", class_weight=W)


def test_row_8_sample_weights() -> None:
    assert_named(log_loss(T, P, sample_weight=S, labels=range(3)), "sklearn.log_loss()", sample_weight=S)
    assert_named(
        log_loss(T, P, sample_weight=S, labels=range(3)),
        "sklearn.log_loss()",
        logits=P,
        inputs="probs",
        sample_weight=S,
    )


def test_a_sum() -> None:
    p = np.exp(LARGE_Z) / np.exp(LARGE_Z).sum(-1, keepdims=True)
    loss = log_loss(LARGE_T, p, sample_weight=LARGE_S, normalize=False, labels=range(5))
    call = "sklearn.log_loss(normalize=False)"
    assert_named(loss, call, logits=LARGE_Z, targets=LARGE_T, sample_weight=LARGE_S)
