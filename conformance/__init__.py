"""The suite that a loss is judged by: vectors, sweeps, the judge, and the processes that backends run in.

``classweight conformance`` runs it, and ``pytest --classweight-backend`` makes a test of each case. `assert_conforms`
holds a loss of one's own against a spec in a test, `assert_parity` losses of several frameworks against each other.
"""

from typing import TYPE_CHECKING

from classweight import lazy as _lazy

if TYPE_CHECKING:
    from .assertions import assert_conforms
    from .parity import assert_parity

__all__ = ["assert_conforms", "assert_parity"]

__getattr__, __dir__ = _lazy.names(__name__, {"assert_conforms": ".assertions", "assert_parity": ".parity"})
