"""Set before any test file is imported."""

import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # the parity tests know that those losses may move
