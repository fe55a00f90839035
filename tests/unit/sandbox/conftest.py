"""Shared by the tests of this room."""

from __future__ import annotations

import os

import pytest

from rlpipe.sandbox import Isolation, SandboxError, isolation


@pytest.fixture(scope="session")
def isolated() -> Isolation:
    """The isolation of this machine; a test that asks for it needs bubblewrap."""
    try:
        return isolation()
    except SandboxError as error:
        if os.environ.get("RLPIPE_SANDBOX") == "required":
            raise
        pytest.skip(f"no program can be isolated here: {error}")
