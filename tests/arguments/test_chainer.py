"""Chainer's errors say the arguments of the function that was called."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of distutils
    from chainer import Variable

import classweight.adapters.chainer as cwch

from ..refusals import Z
from .names import BITS, Valid, Y, each_call, losses

CALLS = {
    **losses(cwch, ["loss", "loss_parts"]),
    "softmax_cross_entropy": Valid(cwch.softmax_cross_entropy, {"x": Z, "t": Y}),
    "softmax_cross_entropy-distributions": Valid(cwch.softmax_cross_entropy, {"x": Z, "t": BITS}),
    "softmax_cross_entropy-double": Valid(cwch.softmax_cross_entropy, {"x": Z, "t": Y, "enable_double_backprop": True}),
    "sigmoid_cross_entropy": Valid(cwch.sigmoid_cross_entropy, {"x": Z, "t": BITS.astype(int)}),
}


@each_call(cwch, CALLS)
def test_errors_say_the_arguments_of_the_call(call: Valid) -> None:
    assert call.assert_errors_name_arguments()
    assert call.assert_errors_name_arguments(Variable)
