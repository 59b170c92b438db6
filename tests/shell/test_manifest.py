"""What stands in a manifest for ever: an older one must be recognised by a newer daemon."""

from __future__ import annotations

import math
from typing import Any

from tiltd.daemon.manifest import options_digest


def test_the_digest_of_options_is_that_of_earlier_releases() -> None:
    options: dict[str, Any] = {"b": 1.0, "a": "é\udce9", "c": [1e16, True], "d": math.nan}
    digest = "38c17175333209aad1dfaec153d6a7bb6927082db2d3b582d1978de119652844"
    assert options_digest(options) == options_digest(dict(reversed(options.items()))) == digest
    assert len({options_digest({"a": value}) for value in (1, 1.0, True, "1")}) == 4
