"""Plain values, there and back, and nothing else."""

from __future__ import annotations

import collections
import enum
import math
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpipe.sandbox.guest.wire import (
    MAX_DEPTH,
    NotPlainError,
    WrongTypeError,
    decode,
    encode,
    encode_content,
    frame,
    read_frame,
)

LIMIT = 1 << 16
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters())  # lone surrogates as well
    | st.binary()
)
KEYS = SCALARS | st.tuples(SCALARS, SCALARS) | st.frozensets(SCALARS, max_size=3)
VALUES = st.recursive(
    SCALARS | st.sets(SCALARS, max_size=3) | st.frozensets(SCALARS, max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


def types(value: Any) -> Any:
    """The exact types of a value and of all in it."""
    if isinstance(value, dict):
        return (type(value), [(types(key), types(item)) for key, item in value.items()])
    if isinstance(value, list | tuple):
        return (type(value), [types(item) for item in value])
    return (type(value), sorted(str(type(item)) for item in value) if isinstance(value, set | frozenset) else None)


@given(VALUES)
def test_a_value_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    back = decode(encode(value, LIMIT))
    assert back == value
    assert types(back) == types(value)


@pytest.mark.parametrize("number", [0, -1, 127, 128, -128, -129, 255, 1 << 14000, -(2**63)])
def test_integers_of_every_size(number: int) -> None:
    assert decode(encode(number, LIMIT)) == number


def test_floats_keep_every_bit() -> None:
    for number in (0.1, -0.0, 5e-324, math.inf, 1 / 3):
        back = decode(encode(number, LIMIT))
        assert (back, math.copysign(1, back)) == (number, math.copysign(1, number))
    assert math.isnan(decode(encode(math.nan, LIMIT)))


class _Equal(list):  # type: ignore[type-arg]
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Any:
        return iter([918])

    def __len__(self) -> int:
        return 1


class _Colour(enum.IntEnum):
    RED = 7


def test_only_exact_types_are_sent_as_arguments() -> None:
    for value in (_Equal([1]), collections.Counter("a"), _Colour.RED, object(), len, type, range(3), iter([])):
        with pytest.raises(WrongTypeError):
            encode([value], LIMIT)


def test_of_a_subclass_only_the_content_is_sent() -> None:
    """Not what it says of itself: the list below claims one element, 918, and holds three."""
    Point = collections.namedtuple("Point", "x y")
    pairs = [
        (_Equal([1, 2, 3]), [1, 2, 3]),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (collections.defaultdict(list, {1: [2]}), {1: [2]}),
        (Point(1, 2), (1, 2)),
        (_Colour.RED, 7),
    ]
    for value, content in pairs:
        back = decode(encode_content(value, LIMIT))
        assert type(back) is type(content)
        assert back == content
    for value in (object(), len, range(3), iter([]), {}.keys()):
        with pytest.raises(WrongTypeError):
            encode_content(value, LIMIT)


def test_a_class_that_claims_to_be_another_is_none() -> None:
    claim = type("Claim", (), {"__class__": int, "__eq__": lambda *_: True})
    with pytest.raises(WrongTypeError):
        encode_content(claim(), LIMIT)


def test_depth_and_size_are_limited_on_the_way_out() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(NotPlainError, match=f"more than {MAX_DEPTH} levels"):
        encode(endless, LIMIT)
    shared: list[Any] = []
    for _ in range(90):
        shared = [shared, shared]  # 2**90 lists when written out
    with pytest.raises(NotPlainError, match=f"more than {LIMIT} bytes"):
        encode(shared, LIMIT)


def size(number: int) -> bytes:
    return number.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ends before"),
        (b"i", "ends before"),
        (b"s" + size(5) + b"abc", "ends before"),
        (b"l" + size(2**32 - 1), "ends before"),  # nothing is reserved for 4 billion elements
        (b"l" + size(1), "ends before"),
        (b"N!", "1 bytes behind"),
        (b"q" + size(0), "no such tag"),
        (b"f" + size(3) + b"one", "hexadecimal"),
        (b"s" + size(1) + b"\xff", "utf-8"),
        (b"e" + size(1) + b"l" + size(0), "unhashable"),
        (b"d" + size(1) + b"l" + size(0) + b"N", "unhashable"),
        (b"c" + b"N" + b"N", "something else than floats"),
        (b"f" + size(8) + b"0x1p9999", "too large"),
        ((b"l" + size(1)) * (MAX_DEPTH + 1) + b"N", "levels deep"),
    ],
)
def test_what_is_no_encoding_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(NotPlainError, match=why):
        decode(data)


@given(st.binary(max_size=60))
def test_no_bytes_make_anything_but_a_plain_value(data: bytes) -> None:
    try:
        value = decode(data)
    except NotPlainError:
        return
    assert encode(value, LIMIT)  # which refuses all but exact plain types


def test_frames_follow_each_other_on_a_pipe() -> None:
    """4 bytes of length, then the parts: 4+3, then 4+0."""
    read, write = os.pipe()
    try:
        assert os.write(write, frame(b"a", b"bc") + frame()) == 11
        assert (read_frame(read), read_frame(read)) == (b"abc", b"")
        os.close(write)
        write = -1
        with pytest.raises(EOFError):
            read_frame(read)
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
