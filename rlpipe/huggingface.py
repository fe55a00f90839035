"""transformers without the libraries that it imports for features which nothing here uses.

Where scikit-learn and scipy are installed (MLflow brings them), transformers imports them for the confidence threshold
of assisted generation and for the losses of object detection: two of the seconds in which a stage starts. Whether a
library is there, transformers asks once and remembers; here it asks anew while the two are hidden. They are hidden from
this question alone: whoever imports them, before or after, gets them.

The rooms that use transformers import this module first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import is_scipy_available, is_sklearn_available

UNUSED = {"sklearn": is_sklearn_available, "scipy": is_scipy_available}


@contextmanager
def _hidden(library: str) -> Iterator[None]:
    """Within, Python does not find `library`: None in `sys.modules` is its way to say so."""
    before = {library: sys.modules[library]} if library in sys.modules else {}
    sys.modules[library] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[library]
        sys.modules.update(before)


for _library, _is_available in UNUSED.items():
    with _hidden(_library):
        _is_available.cache_clear()
        _is_available()
