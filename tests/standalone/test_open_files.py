"""The limit of open files."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource
from pointsman.standalone.open_files import MOST, raise_open_files
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
limit = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
print(raise_open_files() == limit)
print(raise_open_files() == limit)
"""


def test_as_many_files_are_taken_as_the_system_grants() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"]
