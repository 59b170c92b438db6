from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_metrics_page_is_what_the_table_says() -> None:
    argv = [sys.executable, "docs/write_metrics.py", "--check"]
    project = Path(__file__).parents[2]
    done = subprocess.run(argv, cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
