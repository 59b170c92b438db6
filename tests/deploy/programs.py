"""Real programs that the tests of what is deployed ask."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str, package: str) -> str:
    """The path of one that Debian's ``package`` has.  `.ci/run` installs them; a desk without them skips."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed; on Debian: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
