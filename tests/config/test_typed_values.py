"""What is typed becomes a value of the kind that the key holds, or is refused with that kind."""

import math
from typing import Literal

import pytest

from fedsparse_jax.config.typed_values import NO_KIND, kinds_of, value_of_text


@pytest.mark.parametrize(("text", "kind", "value"), [
    ("3", int, 3), ("-3", int, -3), ("3", float, 3.0), ("1e-3", float, 1e-3), ("inf", float, math.inf),
    ("true", bool, True), ("False", bool, False), ("no", bool, False), ("1", bool, True),
    ("1", bool | int, 1), ("true", bool | int, True), ("1.5", int | float, 1.5),
    ("at_least_half", str | float, "at_least_half"), ("0.5", str | float, 0.5),
    ("", str | None, None), ("None", float | None, None), ("", str, ""), ("a b=c", str, "a b=c"),
    ("24,28,24", tuple[int, ...], (24, 28, 24)), ("(24, 28, 24)", tuple[int, int, int], (24, 28, 24)),
    ("[4, 8]", tuple, (4, 8)), ("(5,)", tuple, (5,)), ("()", tuple, ()), ("a,'b'", tuple[str, ...], ("a", "b")),
    ("44,82", tuple[float, float], (44.0, 82.0)), ("late", Literal["early", "late"], "late"),
    ("{'a': 1}", NO_KIND, {"a": 1}), ("word", NO_KIND, "word"), ("0.5", NO_KIND, 0.5), ("TRUE", NO_KIND, True),
])  # fmt: skip
def test_a_text_becomes_a_value(text, kind, value):
    found = value_of_text(text, kind)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(("text", "kind", "named"), [
    ("many", int, "a whole number"), ("4.5", int, "a whole number"), ("", float, "a number"), ("1_0", float, "a number"),
    ("nan", float, "a number"), ("maybe", bool, "true or false"), ("1,2", tuple[int, int, int], "commas"),
    ("1,b", tuple[int, ...], "commas"), ("noon", Literal["early", "late"], "early, late"),
    ("x", int | None, "a whole number or nothing"),
])  # fmt: skip
def test_what_is_none_is_refused_with_the_kind(text, kind, named):
    with pytest.raises(ValueError, match=named):
        value_of_text(text, kind)


def test_a_kind_is_the_annotation_or_that_of_the_default():
    def function(a, b: float, c=2, d=None, *, e: "str | None" = None, f=(1, 2)): ...

    kinds = kinds_of(function)
    assert kinds == dict(a=NO_KIND, b=float, c=int, d=NO_KIND, e=str | None, f=tuple)
