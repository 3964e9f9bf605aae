"""Overrides of a recipe's settings, as a command line gives them: `part.setting=value`."""

import types
import typing
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from keras_robust.checks import did_you_mean
from keras_robust.recipes.config import Recipe


def override(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """A recipe with other settings.

    Args:
        recipe: a `Recipe`.
        assignments: strings `part.setting=value`: numbers (fractions too: 8/255), words, true, false, none, and
            several of them with commas in between.

    Returns:
        A new `Recipe`, checked.

    Raises:
        ValueError: there is no such setting, or it does not take the value.

    Example:
        >>> override(Recipe("mine"), ["training.epochs=50", "attack.norms=Linf,L1", "attack.eps=4/255,2"]).attack.norms
        ('Linf', 'L1')
    """
    changed: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        if not isinstance(assignment, str):
            raise ValueError(f"a setting must be written part.name=value; received {assignment!r}.")
        path, equals, text = assignment.partition("=")
        part, _, setting = path.strip().partition(".")
        if not equals or not setting:
            raise ValueError(f"a setting must be written part.name=value; received {assignment!r}.")
        names = [field.name for field in fields(recipe) if is_dataclass(getattr(recipe, field.name))]
        if part not in names:
            raise ValueError(
                f"a setting must begin with one of {', '.join(names)}; received {assignment!r}."
                f"{did_you_mean(part, names)}"
            )
        hints = typing.get_type_hints(type(getattr(recipe, part)))
        if setting not in hints:
            raise ValueError(
                f"a setting of {part} must be one of {', '.join(hints)}; received {assignment!r}."
                f"{did_you_mean(setting, hints)}"
            )
        try:
            value = _parse(text.strip(), hints[setting])
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{part}.{setting} must be {_describe(hints[setting])}; received {text!r}.") from None
        changed.setdefault(part, {})[setting] = value
    return replace(recipe, **{part: replace(getattr(recipe, part), **values) for part, values in changed.items()})


def _parse(text: str, kind: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if text.lower() in ("none", "null"):
            return None
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return _parse(text, kind)
    if origin is tuple:
        inner = arguments[0]
        if typing.get_origin(inner) is tuple:  # pairs: 0:128,30:224
            items = [item.split(":") for item in text.split(",") if item]
            return tuple(tuple(_parse(part, typing.get_args(inner)[0]) for part in item) for item in items)
        return tuple(_parse(item.strip(), inner) for item in text.split(",") if item.strip())
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    if kind is float:
        numerator, _, denominator = text.partition("/")
        return float(numerator) / float(denominator or 1)
    return kind(text)


def _describe(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("none" if argument is type(None) else _describe(argument) for argument in arguments)
    if origin is tuple:
        inner = arguments[0]
        if typing.get_origin(inner) is tuple:
            return "pairs a:b with commas in between"
        return f"{_describe(inner)}, several with commas in between"
    return {int: "an integer", float: "a number (8/255 too)", bool: "true or false", str: "a word"}[kind]
