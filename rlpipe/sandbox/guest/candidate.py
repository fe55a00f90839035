"""The process that holds the candidate: it loads a program and answers calls of its functions, one at a time.

Nothing of value is here: neither tests nor expected results, only the arguments of the calls. The program may do
with this process what it likes; all that it can win is to give another answer.
"""

from __future__ import annotations

import os
import sys

from rlpipe.sandbox.guest import wire
from rlpipe.sandbox.guest.start import announce, confine, private_channel, steady

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def main(limits: dict[str, int], value_bytes: int) -> None:
    """Serves until the supervisor closes the requests or kills this process."""
    requests, replies = private_channel()
    confine(limits)
    announce(replies)
    solution = type(sys)("solution")
    sys.modules["solution"] = solution  # dataclasses look their module up here
    while True:
        try:
            request = wire.read_frame(requests)
        except EOFError:
            os._exit(0)
        nonce, request = request[: wire.NONCE_BYTES], request[wire.NONCE_BYTES :]
        wire.write_frame(replies, nonce, *_answer(solution, request[:1], request[1:], value_bytes))


def _answer(solution: ModuleType, kind: bytes, body: bytes, value_bytes: int) -> tuple[bytes, bytes]:
    """(kind of reply, body)."""
    try:
        return wire.VALUE, wire.encode_content(_result(solution, kind, body), value_bytes)
    except wire.NotPlainError as error:
        return wire.UNPLAIN, str(error).encode("utf-8", "replace")
    except Exception as error:
        if kind == wire.LOAD:
            return wire.LEFT, f"{type(error).__name__}: {_said(error)}".encode("utf-8", "replace")
        return wire.RAISED, wire.encode([type(error).__name__, _said(error)], value_bytes)
    except BaseException as error:
        return wire.LEFT, type(error).__name__.encode("utf-8", "replace")


def _result(solution: ModuleType, kind: bytes, body: bytes) -> Any:
    if kind == wire.LOAD:
        _load(solution, wire.decode(body))
        return None
    name, args, kwargs = wire.decode(body)
    return getattr(solution, name)(*args, **kwargs)


def _load(solution: ModuleType, sources: list[str]) -> None:
    """Runs the first source that compiles. Raises: what compiling the last one raises, where none does."""
    for at, source in enumerate(sources):
        try:
            code = compile(source, "<solution>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):  # ValueError: a null character
            if at == len(sources) - 1:
                raise
            continue
        steady(source)
        exec(code, solution.__dict__)
        return


def _said(error: Exception) -> str:
    try:
        return str(error)[:200]
    except Exception:
        return ""
