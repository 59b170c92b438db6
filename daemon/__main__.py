"""The command line; nothing else.  ``tiltd COMMAND`` imports the code of that command only, so it is fast."""

from __future__ import annotations

import sys

from tiltd.daemon.cli.dispatch import dispatch


def main() -> int:
    """Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the daemon is not running, 4 not found."""
    return dispatch(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
