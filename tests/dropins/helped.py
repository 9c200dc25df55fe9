"""What `help` says of a drop-in: the differences of its native call, all of them and no others."""

from __future__ import annotations

import pydoc
import re
from typing import Any

from classweight import DIFFERENCES


def check(framework: str, drop_in: Any, call: str) -> None:
    text = pydoc.render_doc(drop_in, renderer=pydoc.plaintext)
    lines = [line.partition("- ")[2] for line in text.splitlines() if re.match(r"[ |]*- .+: native, .+; here, ", line)]
    words = {
        difference: re.split(r"\W+", difference.call.replace("v1 losses", "v1_losses")) for difference in DIFFERENCES
    }
    expected = [
        f"{d.case} ({d.call}): native, {d.native}; here, {d.ours}."
        for d, named in words.items()
        if d.framework == framework and (named[0] == "any" or call in named)
    ]
    assert lines == expected != []
