"""Checks of arguments: each raises a ValueError that names the argument, what came and what is accepted."""

import difflib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

# Numbers end up in float32.
LARGEST = float(np.finfo(np.float32).max)
MOST_CHOICES = 30  # named in a message


def check_count(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int >= `least` that fits 32 bits."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}; received {value!r}.")
    if value >= 2**31:
        raise ValueError(f"{name} must be below 2**31; received {value!r}.")
    return int(value)


def check_number(name: str, value: Any, least: float = 0.0) -> float:
    """`value` as a finite float >= `least`, which float32 can hold."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not abs(value) <= LARGEST or value < least:
        raise ValueError(f"{name} must be a finite number >= {least:g}; received {value!r}.")
    return float(value)


def check_share(name: str, value: Any) -> float:
    """`value` as a float between 0 and 1, both left out."""
    if not 0.0 < check_number(name, value) < 1.0:
        raise ValueError(f"{name} must lie in (0, 1); received {value!r}.")
    return float(value)


def check_bool(name: str, value: Any) -> bool:
    """`value`, True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False; received {value!r}.")
    return bool(value)


def check_shard(name: str, value: Any) -> tuple[int, int]:
    """`value`, a pair (i, n): the i-th of n parts, counted from 1."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{name} must be a pair (i, n); received {value!r}.")
    i, n = (check_count(name, number) for number in value)
    if i > n:
        raise ValueError(f"{name} must be (i, n) with 1 <= i <= n; received {value!r}.")
    return i, n


def check_choice(name: str, value: Any, accepted: Collection[str | None]) -> Any:
    """`value`, one of the strings in `accepted` (or None, where that is one of them).

    Raises:
        ValueError: another value; where it is a misspelt one, the message asks whether the nearest was meant.

    Example:
        >>> check_choice("norm", "linf", ("Linf", "L2", "L1"))
        Traceback (most recent call last):
        ValueError: norm must be one of 'Linf', 'L2', 'L1'; received 'linf'. Did you mean 'Linf'?
    """
    choices = list(accepted)
    # An array would be compared element by element.
    if not (value is None or isinstance(value, str)) or value not in choices:
        shown = ", ".join(map(repr, choices[:MOST_CHOICES])) + (", ..." if len(choices) > MOST_CHOICES else "")
        raise ValueError(f"{name} must be one of {shown}; received {value!r}.{did_you_mean(value, choices)}")
    return value


def did_you_mean(value: Any, accepted: Collection[str | None]) -> str:
    """ " Did you mean ...?" with the strings of `accepted` that are spelt most like `value`; "" where none is near."""
    by_lower_case = {choice.lower(): choice for choice in accepted if choice}
    near = difflib.get_close_matches(str(value).lower(), by_lower_case, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(by_lower_case[word]) for word in near)}?" if near else ""
