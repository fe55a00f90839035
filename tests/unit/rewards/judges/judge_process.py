"""A judge server as a process of its own, and the wires to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]


class Server:
    """One run of judge_server.py, and the wires to it."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("judge_server.py")), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server did not start"
        self.port = int(line)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def plant(self, *faults: dict[str, Any]) -> None:
        """The next completion requests meet these, one each; what was seen before is forgotten."""
        body = json.dumps(list(faults)).encode()
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/faults", body, timeout=10).read()

    def requests(self) -> list[dict[str, Any]]:
        """The completion requests that came in since the last `plant`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/seen", timeout=10) as reply:
            return json.load(reply)["requests"]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
