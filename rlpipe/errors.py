"""One tree of errors. A user's mistake is an RlpipeError; `assert` is for our own bugs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RlpipeError(Exception):
    """A mistake the user can mend. The message names what is wrong, the rule, the reason, the remedy."""


class ConfigError(RlpipeError):
    """`params.yaml`, a preset or an override breaks a rule."""


class DataError(RlpipeError):
    """Input rows are missing, malformed beyond the configured rate, or cannot serve the stage."""


class ShapeError(RlpipeError):
    """Tensors handed to an op do not fit each other."""


class ModelError(RlpipeError):
    """A model or tokenizer cannot be loaded, or lacks what the stage needs."""


class GateError(RlpipeError):
    """The step-0 gate failed: policy, reference and sampler do not agree before training."""


class TrainingError(RlpipeError):
    """Training cannot go on: a loss or gradient is not finite."""


class RewardError(RlpipeError):
    """Too many completions came back without a score."""


class WorkspaceError(RlpipeError):
    """A run's workspace cannot be made, used or adopted."""


class StageError(RlpipeError):
    """A pipeline stage failed; carries the tail of its own log."""


class TrackingError(RlpipeError):
    """The MLflow store cannot be opened."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint for a misspelt name: ` Did you mean 'x'?`, or the list of valid names when none is near."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" Valid: {', '.join(names)}."
