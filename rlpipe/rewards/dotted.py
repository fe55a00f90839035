"""A component of the user's own, by a dotted path: `my_package.my_module:my_function`."""

from __future__ import annotations

import hashlib
import importlib
import math
import sys
from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from rlpipe.errors import ConfigError, RewardError, RlpipeError
from rlpipe.rewards.base import ComponentFunction, Missing
from rlpipe.types import Task

# DVC watches what lies here: a change of it reruns what used it.
_WATCHED = Path(__file__).parent
_DIGITS = 16


def is_dotted(name: str) -> bool:
    """Whether `name` is a path to a function rather than a component's name."""
    return ":" in name or "." in name


def dotted(path: str, root: Path, at: str) -> ComponentFunction:
    """The function at `path`, its module looked for in the run's folder `root` first.

    A score that is None, nan or infinite is a missing one, and so is one of a call that raises: the completion of
    a batch that makes it raise is found by asking for each alone. An RlpipeError is none of these: it is raised.

    Raises: ConfigError if there is no such module or function; when called, RewardError if the answer is not one
        score a completion.
    """
    module_name, name = _parts(path)
    if not (module_name and name):
        raise ConfigError(f"{at}={path}: expected module:function, such as my_package.my_module:my_function.")
    function = getattr(_module(module_name, root, f"{at}={path}"), name, None)
    if not callable(function):
        raise ConfigError(f"{at}={path}: module {module_name} has no function {name!r}. Define it, or mend the path.")
    return _answering(function, path)


def refuse_unrecorded(path: str, recorded: str | None, at: str) -> None:
    """A module outside of what DVC watches must be recorded by how its file hashes, so that a change reruns.

    Call it after `dotted`, which imports the module.

    Raises: ConfigError if `recorded` is not how the hash of the module's file begins.
    """
    file = Path(sys.modules[_parts(path)[0]].__file__ or "")
    if not file.is_file() or file.resolve().is_relative_to(_WATCHED.resolve()):
        return
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if recorded is None or len(recorded) < _DIGITS or not found.startswith(recorded):
        raise ConfigError(
            f'{at}.sha256={recorded}: {file.name} hashes to "{found[:_DIGITS]}". DVC does not watch this file, so a '
            f'change of it must show in params.yaml, or its old results would stay. Set sha256: "{found[:_DIGITS]}", '
            "or move the file into rlpipe/rewards/, which DVC watches."
        )


def _parts(path: str) -> tuple[str, str]:
    """Module and function; `module.function` is understood, too."""
    module_name, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    return module_name, name


def _module(name: str, root: Path, at: str) -> Any:
    folder = str(root.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigError(
            f"{at}: module {name} cannot be imported from {folder}: {type(error).__name__}: {error}. Mend it, or the "
            "path."
        ) from error


def _answering(function: ComponentFunction, path: str) -> ComponentFunction:
    @wraps(function)
    def component(tasks: Sequence[Task], completions: Sequence[str], **options: Any) -> list[float | Missing]:
        try:
            answers = list(function(tasks, completions, **options))
        except RlpipeError:
            raise  # it says itself what to mend
        except Exception as error:
            if len(tasks) == 1:
                return [Missing(f"{type(error).__name__}: {error}")]
            return [component([task], [text], **options)[0] for task, text in zip(tasks, completions, strict=True)]
        if len(answers) != len(tasks):
            raise RewardError(
                f"{path}: {len(answers)} scores for {len(tasks)} completions; a component gives one for each, in order."
            )
        return [_score(answer) for answer in answers]

    return component


def _score(answer: Any) -> float | Missing:
    if isinstance(answer, Missing):
        return answer
    if answer is None:
        return Missing("the function gave None")
    try:
        score = float(answer)
    except (TypeError, ValueError, OverflowError):
        return Missing(f"the function gave {type(answer).__name__}, not a finite number")
    return score if math.isfinite(score) else Missing(f"the function gave {score}")
