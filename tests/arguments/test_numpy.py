"""NumPy's errors say the arguments of the function that was called."""

from __future__ import annotations

import classweight.adapters.numpy as cwn

from .names import Valid, each_call, losses


@each_call(cwn, losses(cwn, cwn.__all__))
def test_errors_say_the_arguments_of_the_call(call: Valid) -> None:
    call.assert_errors_name_arguments()
