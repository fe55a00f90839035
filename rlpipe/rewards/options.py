"""A component's options: its parameters behind `tasks` and `completions`, checked by their annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from rlpipe.errors import ConfigError, nearest
from rlpipe.rewards.base import Component, ComponentFunction

_OPTION = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_STRICT = ConfigDict(strict=True)


def bound(function: ComponentFunction, options: Mapping[str, Any], at: str) -> Component:
    """The component with its options given; `at` is what messages call it, such as `pairs.reward.length`.

    Raises: ConfigError for an option that it does not have, one of the wrong type, or one that is needed and absent.
    """
    known = _parameters(function, at)
    for name in options:
        if name not in known and not _takes_any(function):
            hint = nearest(name, known) if known else " It has none."
            raise ConfigError(f"{at}.{name}={options[name]!r}: no such option of this component.{hint}")
    for name, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            raise ConfigError(f"{at}.{name}: missing; the component cannot do without it. Add the option.")
    hints = _hints(function)
    given = {name: _checked(f"{at}.{name}", value, hints.get(name, Any)) for name, value in options.items()}
    return partial(function, **given)


def needs_options(function: ComponentFunction) -> list[str]:
    """The options that have no default."""
    known = _parameters(function, "")
    return [name for name, parameter in known.items() if parameter.default is inspect.Parameter.empty]


def _parameters(function: ComponentFunction, at: str) -> dict[str, inspect.Parameter]:
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p for p in parameters if p.kind in (*_OPTION[1:], inspect.Parameter.POSITIONAL_ONLY)]
    if len(positional) < 2 and not any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        raise ConfigError(
            f"{at}: a component is a function of (tasks, completions) and then its options; this one takes "
            f"{inspect.signature(function)}. Change its signature."
        )
    return {p.name: p for p in parameters if p.kind in _OPTION and p not in positional[:2]}


def _takes_any(function: ComponentFunction) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations; none where they name what only a type checker knows."""
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, TypeError):
        return {}


def _checked(at: str, value: Any, hint: Any) -> Any:
    try:
        adapter = TypeAdapter(hint, config=_STRICT)
    except PydanticUserError:  # the type has rules of its own, or is none that pydantic knows
        return _checked_plainly(at, value, hint)
    return _validated(at, value, adapter)


def _checked_plainly(at: str, value: Any, hint: Any) -> Any:
    try:
        adapter = TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        return value
    return _validated(at, value, adapter)


def _validated(at: str, value: Any, adapter: TypeAdapter[Any]) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{at}={value!r}: {problem['msg'].removeprefix('Value error, ')}.") from None
