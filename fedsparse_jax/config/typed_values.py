"""From the text of a command line to a value of the kind that a key holds."""

import ast
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any

NO_KIND = inspect.Parameter.empty
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")
NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "numbers or words with commas between them",
    dict: "a dict, such as {10: 0.1}",
    type(None): "nothing",
}


def kinds_of(function: Callable) -> dict[str, Any]:
    """The kind of each of a function's parameters: its annotation, else the type of its default, else `NO_KIND`.

    >>> kinds_of(lambda age=89, names=(), *, more=None: None)
    {'age': <class 'int'>, 'names': <class 'tuple'>, 'more': <class 'inspect._empty'>}
    """
    try:
        annotations = typing.get_type_hints(function)
    except Exception:  # an annotation that cannot be evaluated here; the default then says the kind
        annotations = {}
    kinds = {}
    for name, parameter in inspect.signature(function).parameters.items():
        default = parameter.default
        of_default = NO_KIND if default in (None, NO_KIND) else type(default)
        kinds[name] = annotations.get(name, of_default)
    return kinds


def value_of_text(text: str, kind: Any) -> Any:
    """The value that a text stands for.

    Args:
        text: as it was typed; empty, or ``None``, is None where the kind allows that.
        kind: a type, such as ``int``, ``str | None`` or ``tuple[int, ...]``; `NO_KIND` for whatever the text says.

    Raises:
        ValueError: it stands for none; the message says what the kind is.

    >>> value_of_text("0.5", float), value_of_text("24,28", tuple[int, ...]), value_of_text("", str | None)
    (0.5, (24, 28), None)
    >>> value_of_text("many", int)
    Traceback (most recent call last):
    ValueError: a whole number
    """
    if kind is NO_KIND:
        return _literal(text)
    arms = _arms(kind)
    if type(None) in arms and text.strip() in ("", "None", "none"):
        return None
    for arm in sorted(arms, key=lambda arm: arm is str):  # text is whatever is nothing else
        value = _value(text, arm, len(arms) == 1)
        if value is not NO_KIND:
            return value
    raise ValueError(" or ".join(dict.fromkeys(filter(None, map(_name, arms)))) or "something else")


def _arms(kind: Any) -> list[Any]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [arm for part in typing.get_args(kind) for arm in _arms(part)]
    return [kind]


def _name(arm: Any) -> str:
    if typing.get_origin(arm) is typing.Literal:
        return ", ".join(map(str, typing.get_args(arm)))
    return NAMES.get(typing.get_origin(arm) or arm, "")


def _value(text: str, arm: Any, alone: bool) -> Any:
    """The value of one of a kind's arms; `NO_KIND` where the text is none of it."""
    text = text.strip() if arm is not str else text
    if arm is bool:
        words = (TRUE, FALSE) if alone else (TRUE[:1], FALSE[:1])
        return next(
            (value for value, of_it in zip((True, False), words, strict=True) if text.lower() in of_it), NO_KIND
        )
    if arm is int:
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else NO_KIND
    if arm is float:
        return float(text) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf", text, re.I) else NO_KIND
    if arm is str:
        return text
    if typing.get_origin(arm) is typing.Literal:
        return text if text in typing.get_args(arm) else NO_KIND
    if (typing.get_origin(arm) or arm) in (tuple, list):
        return _tuple(text, typing.get_args(arm))
    if (typing.get_origin(arm) or arm) is dict:
        value = _literal(text)
        return value if isinstance(value, dict) else NO_KIND
    return NO_KIND


def _tuple(text: str, elements: tuple[Any, ...]) -> Any:
    """``24,28,24`` or ``(24, 28, 24)``; of as many, and of the kinds, that are asked for."""
    inner = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text
    parts = [part.strip().strip("'\"") for part in inner.split(",")]
    parts = parts[:-1] if parts[-1] == "" else parts
    if elements[1:] == (...,):
        elements = (elements[0],) * len(parts)
    elements = elements or (NO_KIND,) * len(parts)
    if len(parts) != len(elements):
        return NO_KIND
    try:
        return tuple(value_of_text(part, kind) for part, kind in zip(parts, elements, strict=True))
    except ValueError:
        return NO_KIND


def _literal(text: str) -> Any:
    """What Python reads in the text, else the text."""
    if text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
