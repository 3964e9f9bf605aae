"""Recipes as JSON, and settings from the command line."""

import difflib
import hashlib
import json
import types
import typing
from dataclasses import asdict, fields, is_dataclass, replace

from keras_robust.recipes.config import Recipe


def to_json(recipe):
    """A recipe as JSON text.

    Example:
        >>> from_json(to_json(recipe)) == recipe
        True
    """
    return json.dumps(asdict(recipe), indent=1) + "\n"


def from_json(text):
    """The recipe of `to_json`.

    Raises:
        ValueError: no recipe, an unknown setting, or a value that is not accepted.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(f"a recipe must be JSON; {error}") from None
    return _build(Recipe, values, "recipe")


def fingerprint(recipe):
    """A hash of what decides the weights; data may move to another folder."""
    parts = json.loads(to_json(recipe))
    for part in ("name", "evaluation", "checkpoints", "guard"):
        del parts[part]
    for setting in ("source", "data_dir", "download"):
        del parts["data"][setting]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def differences(one, other):
    """The settings in which two recipes differ, as text."""
    a, b = (json.loads(to_json(recipe)) for recipe in (one, other))
    found = []
    for part in a:
        if isinstance(a[part], dict):
            found += [f"{part}.{s}={a[part][s]}, not {b[part][s]}" for s in a[part] if a[part][s] != b[part][s]]
    return found


def override(recipe, assignments):
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
        >>> override(recipe, ["training.epochs=50", "attack.norms=Linf,L1", "attack.eps=4/255,255/255"])
    """
    changed = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        part, _, setting = path.strip().partition(".")
        if not equals or not setting:
            raise ValueError(f"a setting must be written part.name=value; received {assignment!r}.")
        names = [field.name for field in fields(recipe) if is_dataclass(getattr(recipe, field.name))]
        if part not in names:
            raise ValueError(f"no part {part!r} of a recipe{_guess(part, names)}: there are {', '.join(names)}.")
        hints = typing.get_type_hints(type(getattr(recipe, part)))
        if setting not in hints:
            raise ValueError(f"no setting {setting!r} in {part}{_guess(setting, hints)}: there are {', '.join(hints)}.")
        try:
            value = _parse(text.strip(), hints[setting])
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{part}.{setting} takes {_describe(hints[setting])}; received {text!r}.") from None
        changed.setdefault(part, {})[setting] = value
    return replace(recipe, **{part: replace(getattr(recipe, part), **values) for part, values in changed.items()})


def _guess(word, words):
    near = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _build(kind, values, name):
    if not isinstance(values, dict):
        raise ValueError(f"{name} must be a JSON object; received {values!r}.")
    hints = typing.get_type_hints(kind)
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        raise ValueError(f"{name} has no setting {unknown[0]!r}{_guess(unknown[0], hints)}.")
    arguments = {}
    for setting, value in values.items():
        if is_dataclass(hints[setting]):
            arguments[setting] = _build(hints[setting], value, setting)
        else:
            arguments[setting] = _tuples(value)
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _parse(text, kind):
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


def _describe(kind):
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("none" if argument is type(None) else _describe(argument) for argument in arguments)
    if origin is tuple:
        inner = arguments[0]
        if typing.get_origin(inner) is tuple:
            return "pairs a:b with commas in between"
        return f"{_describe(inner)}, several with commas in between"
    return {int: "an integer", float: "a number (8/255 too)", bool: "true or false", str: "a word"}[kind]
