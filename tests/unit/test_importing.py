"""While a stage imports, Python looks for no garbage; afterwards it does, whatever happened."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from rlpipe.environment import importing


class _Knot:
    """An object that holds itself: only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_the_collector_rests_within_and_works_after() -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    knot = _Knot()
    seen = weakref.ref(knot)
    del knot
    gc.collect()
    assert seen() is None


def test_a_failed_import_leaves_the_collector_on() -> None:
    with pytest.raises(ImportError), importing():
        import rlpipe.no_such_module  # noqa: F401
    assert gc.isenabled()


def test_what_was_imported_is_not_looked_through_again() -> None:
    with importing():
        kept = [_Knot()]
    assert not any(one is kept for one in gc.get_objects())
