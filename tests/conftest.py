"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("patient", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=20_000, print_blob=True)
settings.load_profile("fuzz" if os.environ.get("POINTSMAN_FUZZ") else "patient")
