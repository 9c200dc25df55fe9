"""TensorFlow's errors say the arguments of the function that was called, those of a graph that runs too."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow as tf

import classweight.adapters.tensorflow as cwtf
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.adapters.tensorflow import route

from ..refusals import REFUSALS, Refusal, Z
from .names import BITS, Valid, Y, each_call, losses

CALLS = {
    **losses(cwtf, ["loss", "loss_parts"]),
    "sparse_softmax_cross_entropy_with_logits": Valid(
        cwtf.sparse_softmax_cross_entropy_with_logits, {"labels": Y, "logits": Z}
    ),
    "softmax_cross_entropy_with_logits": Valid(cwtf.softmax_cross_entropy_with_logits, {"labels": BITS, "logits": Z}),
    "weighted_cross_entropy_with_logits": Valid(
        cwtf.weighted_cross_entropy_with_logits, {"labels": BITS, "logits": Z, "pos_weight": 2.0}
    ),
    "sparse_softmax_cross_entropy": Valid(cwtf.sparse_softmax_cross_entropy, {"labels": Y, "logits": Z}),
    "softmax_cross_entropy": Valid(cwtf.softmax_cross_entropy, {"onehot_labels": BITS, "logits": Z}),
    "sigmoid_cross_entropy": Valid(cwtf.sigmoid_cross_entropy, {"multi_class_labels": BITS, "logits": Z}),
}


@each_call(cwtf, CALLS)
def test_errors_say_the_arguments_of_the_call(call: Valid) -> None:
    assert call.assert_errors_name_arguments(tf.constant)


# A sentence as an assertion of a graph spells it.
ASSERTED = r"assertion failed: \[`(\w+)` must ([^\]]*); got\] \[([^\]]*)\](?: \[at position\] \[([\d ]*)\])?"
MEAN = SoftmaxCrossEntropy()


def assert_said(f: Callable[[], Any], *expected: str) -> None:
    """Assert that an assertion stops ``f``, and says this argument, what it must be, what it is, and where."""
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        f()
    said = re.search(ASSERTED, str(caught.value))
    assert said, caught.value
    assert said.groups("") == expected


OF_VALUES = {
    name: refusal
    for name, refusal in REFUSALS.items()
    if re.search("(target|distribution|weight)-.*(nan|infinite|negative|large|wrap|ignored|zero|map)$", name)
    and not isinstance(refusal.spec, str)
}


def eager_words(refusal: Refusal) -> tuple[str, str, str, str]:
    """Return the eager error's name, what it expected, what came and where."""
    with pytest.raises(refusal.error) as caught:
        cwtf.loss(refusal.spec, tf.constant(refusal.logits), tf.constant(refusal.targets), **refusal.arguments)
    found = re.fullmatch(r"`(\w+)` must (.*); got (\S+)(?: at position \((.*)\))?", str(caught.value))
    assert found
    name, expected, got, where = found.groups("")
    return name, expected, f"{float(got):g}", " ".join(where.replace(",", " ").split())


@pytest.mark.parametrize("lengths_are_known", [True, False])
@pytest.mark.parametrize("refusal", list(OF_VALUES.values()), ids=list(OF_VALUES))
def test_a_graph_says_what_the_eager_error_says(refusal: Refusal, lengths_are_known: bool) -> None:
    names = list(refusal.arguments)
    inputs = list(map(tf.constant, (refusal.logits, refusal.targets, *refusal.arguments.values())))
    shapes = [x.shape if lengths_are_known else [None, *x.shape[1:]] for x in inputs]
    if not lengths_are_known and "class_weight" in names:
        shapes[-1] = inputs[-1].shape

    @tf.function(input_signature=[tf.TensorSpec(shape, x.dtype) for shape, x in zip(shapes, inputs, strict=True)])
    def f(z: Any, t: Any, *arguments: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = cwtf.loss(refusal.spec, z, t, **dict(zip(names, arguments, strict=True)))
        return tape.gradient(value, z)

    assert_said(lambda: f(*inputs), *eager_words(refusal))


def bad_label(validate: bool | None = None, **options: Any) -> tuple[Any, Any, Any]:
    """Return a graph's loss of three rows of zeros, with labels of which one is bad, and with good ones."""
    f = tf.function(lambda y: cwtf.loss(MEAN, tf.zeros((3, 3)), y, validate=validate), **options)
    return f, tf.constant([0, 3, 2]), tf.constant([0, 1, 2])


SENTENCE = "targets", "be class indices from 0 to 2", "3", "1"


def test_a_good_batch_passes_before_and_after_a_bad_one() -> None:
    f, bad, good = bad_label()
    for _ in range(2):
        assert f(good) == cwtf.loss(MEAN, tf.zeros((3, 3)), good)
        assert_said(lambda: f(bad), *SENTENCE)


def test_a_graph_that_is_not_to_look_gives_nan_and_so_does_xla() -> None:
    f, bad, _ = bad_label()
    assert_said(lambda: f(bad), *SENTENCE)
    assert np.isnan(bad_label(validate=False)[0](bad))
    assert np.isnan(bad_label(jit_compile=True)[0](bad))
    assert np.isnan(tf.function(lambda y: f(y), jit_compile=True)(bad))  # traced before, as what XLA does not compile
    concrete = f.get_concrete_function(bad)
    assert np.isnan(tf.function(lambda y: concrete(y), jit_compile=True)(bad))


def test_nan_that_no_argument_made_is_nan() -> None:
    f = tf.function(lambda z: cwtf.loss(MEAN, z, [0, 1, 2]))
    assert np.isnan(f(np.nan * tf.zeros((3, 3))))
    f = tf.function(lambda z, y: cwtf.loss(SoftmaxCrossEntropy(zero_denominator="nan"), z, y))
    assert np.isnan(f(tf.zeros((0, 3)), tf.zeros(0, tf.int32)))


def test_what_is_ignored_or_masked_may_be_bad() -> None:
    labels, mask = tf.constant([0, 3, 2]), tf.constant([True, False, True])
    ignored = SoftmaxCrossEntropy(ignore_index=3)
    for f in (
        lambda y: cwtf.loss(ignored, tf.zeros((3, 3)), y),
        lambda y: cwtf.loss(MEAN, tf.zeros((3, 3)), y, mask=mask),
    ):
        np.testing.assert_allclose(tf.function(f)(labels), np.log(3), rtol=1e-6)
        assert_said(lambda f=f: tf.function(f)(tf.constant([4, 3, 2])), *SENTENCE[:2], "4", "0")


def test_a_graph_for_an_accelerator_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    device = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(route.tf.config, "get_visible_devices", lambda: [device])
    f, bad, _ = bad_label()
    assert np.isnan(f(bad))

    def on_cpu(z: Any, y: Any) -> Any:
        with tf.device("CPU"):
            return cwtf.loss(MEAN, tf.identity(z), y)

    assert_said(lambda: tf.function(on_cpu)(tf.zeros((3, 3)), bad), *SENTENCE)


def test_the_parts_of_a_loss_and_large_calls_say_it() -> None:
    labels = tf.constant(np.where(np.arange(512) == 400, 1000, 0))
    for f in (cwtf.loss, cwtf.loss_parts):
        graph = tf.function(lambda z, y, f=f: f(MEAN, z, y))
        assert_said(
            lambda graph=graph: graph(tf.zeros((512, 1000)), labels),
            "targets",
            "be class indices from 0 to 999",
            "1000",
            "400",
        )


def test_losses_of_elements_show_their_own_nan() -> None:
    f = tf.function(lambda t: cwtf.loss(SigmoidCrossEntropy(reduction="none"), tf.zeros(3), t))
    assert np.isnan(f(tf.constant([0.0, -1, 1]))).tolist() == [False, True, False]


def test_a_data_set_a_vectorised_map_and_replicas_say_it() -> None:
    rows = tf.zeros((3, 3)), tf.constant([0, 3, 2])
    data = tf.data.Dataset.from_tensors(rows).map(lambda z, y: cwtf.loss(MEAN, z, y))
    assert_said(lambda: next(iter(data)), *SENTENCE)
    each = lambda pair: cwtf.loss(MEAN, *pair)  # noqa: E731
    np.testing.assert_allclose(tf.vectorized_map(each, (rows[0], tf.constant([0, 1, 2]))), [np.log(3)] * 3, rtol=1e-6)
    assert_said(lambda: tf.vectorized_map(each, rows), *SENTENCE[:3], "")
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    assert_said(lambda: tf.function(lambda: strategy.run(lambda: cwtf.loss(MEAN, *rows)))(), *SENTENCE)


def test_a_saved_model_says_it(tmp_path: Path) -> None:
    module = tf.Module()
    signature = [tf.TensorSpec((None, 3)), tf.TensorSpec((None,), tf.int32)]
    module.loss = tf.function(lambda z, y: cwtf.loss(MEAN, z, y), input_signature=signature)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(module, str(tmp_path))
        loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_allclose(loaded.loss(tf.zeros((1, 3)), [2]), np.log(3), rtol=1e-6)
    assert_said(lambda: loaded.loss(tf.zeros((3, 3)), [0, 3, 2]), *SENTENCE)


def test_a_graph_of_tensorflow_1_says_it_where_it_computes_the_loss() -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        labels = tf.compat.v1.placeholder(tf.int32, (None,))
        value = cwtf.sparse_softmax_cross_entropy(labels, tf.zeros((3, 3)))
        np.testing.assert_allclose(session.run(value, {labels: [0, 1, 2]}), np.log(3), rtol=1e-6)
        assert_said(lambda: session.run(value, {labels: [0, 3, 2]}), "labels", *SENTENCE[1:])


@pytest.mark.parametrize("name", [name for name in CALLS if not name.startswith(("loss", "weighted"))])
def test_assertions_say_the_names_of_drop_ins(name: str) -> None:
    call = CALLS[name]
    argument = next(parameter for parameter in call.arguments if parameter.endswith("labels"))
    targets = np.where(Y == 2, 3, Y) if name.startswith("sparse") else np.where(BITS > 0, -2.0, 0)
    graph = tf.function(lambda z, t: call.function(logits=z, **{argument: t}))
    got, where = ("3", "2") if name.startswith("sparse") else ("-2", "0 0")
    assert_said(
        lambda: graph(tf.constant(Z, tf.float32), tf.constant(targets)),
        argument,
        "be class indices from 0 to 2" if name.startswith("sparse") else "be finite and >= 0",
        got,
        where,
    )
