"""How the processes talk: frames on pipes, and plain values in an encoding of our own.

A frame is 4 bytes of length, big-endian, and that many bytes. A value is a tag of one byte and what the tag says:

    N T F            None, True, False
    i n bytes        int, two's complement, big-endian
    f n text         float, as `float.hex` writes it: every bit kept
    c value value    complex, two floats
    s n bytes        str, UTF-8 (surrogates as they are)
    b n bytes        bytes
    l t e z n ...    list, tuple, set, frozenset of n values
    d n ...          dict of n keys and values, in order

with every n in 4 bytes. Decoding builds these exact built-in types and nothing else, and evaluates nothing.
"""

from __future__ import annotations

import os

# `typing` takes longer to import than this module; a checker takes the name for typing's own.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Every guest to the supervisor, once.
READY = b"R"
# The supervisor to a candidate, and its replies: a value; an exception that a test may expect; a value that is none
# of the types above; an exception that nobody expects, which is any on loading, and SystemExit and its like always.
LOAD, CALL = b"L", b"C"
VALUE, RAISED, UNPLAIN, LEFT = b"v", b"e", b"u", b"x"
# An evaluator to the supervisor: call the candidate; and its last word on a job: every test held; a test did not;
# the tests are no tests; the process that ran them died.
ASK, PASSED, FAILED, BROKEN, DIED = b"A", b"P", b"F", b"B", b"D"

NONCE_BYTES = 16
MAX_DEPTH = 100
_TAGS: dict[type, bytes] = {
    int: b"i",
    float: b"f",
    complex: b"c",
    str: b"s",
    bytes: b"b",
    list: b"l",
    tuple: b"t",
    set: b"e",
    frozenset: b"z",
    dict: b"d",
}
_CONSTANTS = {b"N": None, b"T": True, b"F": False}
_COLLECTIONS: dict[bytes, Any] = {b"l": list, b"t": tuple, b"e": set, b"z": frozenset}


class NotPlainError(Exception):
    """A value that has no encoding, or bytes that are the encoding of none; says why."""


class WrongTypeError(NotPlainError):
    """A value of a type that has no encoding."""


def read_exact(fd: int, size: int) -> bytes:
    """`size` bytes from a blocking descriptor. Raises: EOFError where they end before."""
    data = bytearray()
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise EOFError("the other side is gone")
        data += more
    return bytes(data)


def read_frame(fd: int) -> bytes:
    """The next frame of a blocking descriptor. Raises: EOFError."""
    return read_exact(fd, int.from_bytes(read_exact(fd, 4), "big"))


def frame(*parts: bytes) -> bytes:
    """One frame with these parts, one behind the other."""
    body = b"".join(parts)
    return len(body).to_bytes(4, "big") + body


def write_frame(fd: int, *parts: bytes) -> None:
    """Writes one frame to a blocking descriptor."""
    data = memoryview(frame(*parts))
    while data:
        data = data[os.write(fd, data) :]


def encode(value: object, limit: int) -> bytes:
    """The encoding of a value whose parts are all of the exact types above.

    Raises: WrongTypeError for another type; NotPlainError for more than `limit` bytes or MAX_DEPTH levels.
    """
    out = bytearray()
    _append(out, value, limit, MAX_DEPTH, _TAGS.get)
    return bytes(out)


def encode_content(value: object, limit: int) -> bytes:
    """As `encode`, where a subclass counts as the built-in type under it: a Counter is a dict, and no more.

    What such an object says of itself (`__eq__`, `__iter__`, `items`) is not asked. Raises: as `encode`.
    """
    out = bytearray()
    _append(out, value, limit, MAX_DEPTH, _tag_of_base)
    return bytes(out)


def decode(data: bytes) -> Any:
    """The value of an encoding. Raises: NotPlainError where it is not the encoding of exactly one value."""
    value, end = _decoded(data, 0, MAX_DEPTH)
    if end != len(data):
        raise NotPlainError(f"{len(data) - end} bytes behind the value")
    return value


def _tag_of_base(kind: type) -> bytes | None:
    return next((_TAGS[base] for base in kind.__mro__ if base in _TAGS), None)


def _append(out: bytearray, value: Any, limit: int, depth: int, tag_of: Callable[[type], bytes | None]) -> None:
    if value is None or value is True or value is False:
        out += b"N" if value is None else b"T" if value else b"F"
        return
    tag = tag_of(type(value))
    if tag is None:
        raise WrongTypeError(f"a {type(value).__name__} is no plain value")
    if depth == 0:
        raise NotPlainError(f"more than {MAX_DEPTH} levels deep")
    out += tag
    # The base type's own methods, so that a subclass has no say.
    if tag == b"i":
        _append_bytes(out, int.to_bytes(value, int.bit_length(value) // 8 + 1, "big", signed=True))
    elif tag == b"f":
        _append_bytes(out, float.hex(value).encode())
    elif tag == b"c":
        exact = complex.__complex__(value)
        _append(out, exact.real, limit, depth - 1, tag_of)
        _append(out, exact.imag, limit, depth - 1, tag_of)
    elif tag == b"s":
        _append_bytes(out, str.encode(value, "utf-8", "surrogatepass"))
    elif tag == b"b":
        _append_bytes(out, bytes.join(b"", [value]))
    elif tag == b"d":
        out += dict.__len__(value).to_bytes(4, "big")
        for key, item in dict.items(value):
            _append(out, key, limit, depth - 1, tag_of)
            _append(out, item, limit, depth - 1, tag_of)
    else:
        kind = _COLLECTIONS[tag]
        out += kind.__len__(value).to_bytes(4, "big")
        for item in kind.__iter__(value):
            _append(out, item, limit, depth - 1, tag_of)
    if len(out) > limit:
        raise NotPlainError(f"more than {limit} bytes")


def _append_bytes(out: bytearray, data: bytes) -> None:
    out += len(data).to_bytes(4, "big")
    out += data


def _decoded(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends."""
    tag, at = data[at : at + 1], at + 1
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if depth == 0:
        raise NotPlainError(f"more than {MAX_DEPTH} levels deep")
    if tag == b"c":
        real, at = _decoded(data, at, depth - 1)
        imaginary, at = _decoded(data, at, depth - 1)
        if type(real) is not float or type(imaginary) is not float:
            raise NotPlainError("a complex of something else than floats")
        return complex(real, imaginary), at
    size, at = int.from_bytes(data[at : at + 4], "big"), at + 4
    if at + size > len(data):  # every part takes a byte at least, so this holds for numbers of parts too
        raise NotPlainError("ends before it says")
    try:
        if tag == b"d":
            return _decoded_dict(data, at, size, depth)
        if tag in _COLLECTIONS:
            return _decoded_collection(_COLLECTIONS[tag], data, at, size, depth)
        return _scalar(tag, data[at : at + size]), at + size
    except (TypeError, ValueError, OverflowError) as error:  # no hash, no float, no UTF-8
        raise NotPlainError(str(error)) from None


def _decoded_dict(data: bytes, at: int, size: int, depth: int) -> tuple[Any, int]:
    pairs = {}
    for _ in range(size):
        key, at = _decoded(data, at, depth - 1)
        pairs[key], at = _decoded(data, at, depth - 1)
    return pairs, at


def _decoded_collection(kind: Any, data: bytes, at: int, size: int, depth: int) -> tuple[Any, int]:
    items = []
    for _ in range(size):
        item, at = _decoded(data, at, depth - 1)
        items.append(item)
    return kind(items), at


def _scalar(tag: bytes, data: bytes) -> Any:
    if tag == b"i":
        return int.from_bytes(data, "big", signed=True)
    if tag == b"f":
        return float.fromhex(data.decode("ascii"))
    if tag == b"s":
        return data.decode("utf-8", "surrogatepass")
    if tag == b"b":
        return data
    raise NotPlainError(f"no such tag {tag!r}")
