"""The core's errors say the arguments of the function that was called."""

from __future__ import annotations

import pytest

import classweight
from classweight import ClassCounts, ClassWeights, SigmoidCrossEntropy, SoftmaxCrossEntropy, conventions

from ..refusals import Z
from .names import BITS, Valid, Y

COUNTS = [3, 1, 2]
KEYS = frozenset({"loss", "version"})  # of a description
READING = frozenset({"class_names", "num_classes", "one_hot"})  # what is handed on to `class_weights`
CALLS = {
    "ClassCounts": Valid(ClassCounts, {"num_classes": 2, "class_names": ["a", "b"]}),
    "ClassCounts.update": Valid(ClassCounts(3).update, {"labels": Y}, frozenset({"class_names"})),
    "ClassCounts.from_counts": Valid(ClassCounts.from_counts, {"counts": COUNTS}),
    "ClassCounts.from_dict": Valid(ClassCounts.from_dict, {"description": ClassCounts(3).to_dict()}, KEYS),
    "ClassCounts.as_dict": Valid(ClassCounts(3).as_dict, {}),
    "ClassWeights.as_dict": Valid(classweight.class_weights(Y).as_dict, {}),
    "SigmoidCrossEntropy": Valid(SigmoidCrossEntropy, {}),
    "SoftmaxCrossEntropy": Valid(SoftmaxCrossEntropy, {}),
    "adjust_logits": Valid(classweight.adjust_logits, {"logits": Z, "offsets": [0.0, 1, 2]}),
    "class_weights": Valid(classweight.class_weights, {"labels": Y}),
    "class_weights-counts": Valid(classweight.class_weights, {"counts": COUNTS}),
    "compare": Valid(classweight.compare, {"logits": Z, "targets": Y}),
    "compare-probs": Valid(classweight.compare, {"logits": BITS, "targets": Y, "inputs": "probs"}),
    "correct_for_sampling": Valid(
        classweight.correct_for_sampling, {"class_weight": [1.0, 2, 5], "sampling_rate": [0.5, 1, 2]}
    ),
    "from_dict": Valid(classweight.from_dict, {"description": SoftmaxCrossEntropy().to_dict()}, KEYS),
    "identify": Valid(classweight.identify, {"loss": 0.5, "logits": Z, "targets": Y}),
    "logit_offsets": Valid(classweight.logit_offsets, {"labels": Y}, READING),
    "logit_offsets-counts": Valid(classweight.logit_offsets, {"counts": COUNTS}, READING),
    "sample_weights": Valid(classweight.sample_weights, {"targets": Y, "class_weight": [1.0, 2, 5]}),
    "sample_weights-rows": Valid(classweight.sample_weights, {"targets": BITS, "class_weight": [1.0, 2, 5]}),
    "sampler_weights": Valid(classweight.sampler_weights, {"labels": Y}),
}
CONVENTIONS = {
    f"{page.__name__.rsplit('.', 1)[-1]}.{name}": Valid(getattr(page, name), {})
    for page in map(conventions.__dict__.get, conventions.__all__)
    if hasattr(page, "__all__")
    for name in page.__all__
}
CONVENTIONS["tensorflow.weighted_cross_entropy_with_logits"].arguments["pos_weight"] = 2.0
CONVENTIONS["tensorflow.weight_map"].arguments["class_weight"] = [1.0, 2]


def test_every_public_function_is_called() -> None:
    public = {name for name in classweight.__all__ if callable(getattr(classweight, name))}
    assert public - {name.split("-")[0] for name in CALLS} == {ClassWeights.__name__, "TargetIndexError"}


@pytest.mark.parametrize("call", [*CALLS.values(), *CONVENTIONS.values()], ids=[*CALLS, *CONVENTIONS])
def test_errors_say_the_arguments_of_the_call(call: Valid) -> None:
    assert call.assert_errors_name_arguments()
