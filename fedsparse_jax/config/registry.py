"""A section of a config, and the member of a registry that it names.

A section names a member, and its other keys are that member's arguments. Both are checked, so that a misspelt name or
key is one clear sentence and not a traceback; an error of the member itself gets the path of the section.
"""

import contextlib
import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import optax

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.optimizers import rate_factor_of_round

_OPTAX = (
    "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad",
    "fromage", "lamb", "lars", "lion", "nadam", "nadamw", "noisy_sgd", "novograd", "optimistic_adam",
    "optimistic_adam_v2", "optimistic_gradient_descent", "radam", "rmsprop", "rprop", "sgd", "sign_sgd", "signum",
    "sm3", "yogi",
)  # fmt: skip
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {name: getattr(optax, name) for name in _OPTAX}

_OPTAX_SCHEDULES = (
    "constant_schedule", "cosine_decay_schedule", "cosine_onecycle_schedule", "exponential_decay",
    "linear_onecycle_schedule", "linear_schedule", "piecewise_constant_schedule", "piecewise_interpolate_schedule",
    "polynomial_schedule", "warmup_constant_schedule", "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
)  # fmt: skip
RATE_SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {name: getattr(optax, name) for name in _OPTAX_SCHEDULES}


def lookup(registry: Mapping[str, Any], name: str, path: str):
    """``registry[name]``, or a sentence that lists the names there are."""
    if name not in registry:
        raise UsageError(f"{path} is {name!r}: it must be one of {', '.join(registry)}.")
    return registry[name]


def bind_options(
    registry: Mapping[str, Callable[..., Any]],
    section: Mapping,
    path: str,
    *given: str,
    options_of: Callable | None = None,
) -> Callable[..., Any]:
    """The member that ``section`` names, with the section's other keys bound as arguments.

    Args:
        registry: name to function.
        section: ``name`` and keyword arguments.
        path: where the section stands in the config, for the error message.
        given: parameters that the caller supplies later; the config may not set them.
        options_of: the function whose parameters the keys are, if not the member's own.

    Raises:
        UsageError: an unknown name, or a key that the function does not take.
    """
    options = {key: value for key, value in section.items() if key != "name"}
    function = lookup(registry, section["name"], f"{path}.name")
    takes = [name for name in inspect.signature(options_of or function).parameters if name not in given]
    for key in options:
        if key not in takes:
            refuse_option(path, key, section["name"], takes)
    return functools.partial(function, **options)


def refuse_option(path: str, key: str, member: str, takes: Sequence[str], others: Sequence[str] = ()) -> NoReturn:
    """Refuses a key that a member of a registry does not take.

    Args:
        path: of the section.
        key: in it.
        member: that the section names.
        takes: what the member takes.
        others: members that take the key.
    """
    close = difflib.get_close_matches(key, takes, 1, cutoff=0.75)
    hint = f" (did you mean {close[0]}?)" if close else f"; it is one of {', '.join(others)}" if others else ""
    raise UsageError(f"{path}.{key} is not an option of {member!r}, which takes: {', '.join(takes) or 'none'}{hint}.")


@contextlib.contextmanager
def argument_path(path: str, **elsewhere: str) -> Iterator[None]:
    """Puts the path of a config's section before the argument that an `ArgumentError` names.

    Args:
        path: of the section; empty for the top.
        **elsewhere: full paths of arguments that stand in another section.

    >>> with argument_path("pruning.schedule"):
    ...     raise ArgumentError("final", 2, "a sparsity lies between 0 and 1")
    Traceback (most recent call last):
    fedsparse_jax.core.errors.UsageError: pruning.schedule.final is 2: a sparsity lies between 0 and 1.
    """
    try:
        yield
    except ArgumentError as error:
        key = elsewhere.get(error.argument) or ".".join(filter(None, (path, error.argument)))
        raise UsageError(str(error).replace(error.argument, key, 1)) from None


def optimizer(section: Mapping, path: str) -> optax.GradientTransformation:
    """An optimizer of optax by name, such as ``sgd``, ``adam`` or ``adamw``, with its arguments.

    Raises:
        UsageError: an unknown name or argument, or a missing one.
    """
    make = bind_options(OPTIMIZERS, section, path)
    try:
        return make()
    except TypeError as error:
        raise UsageError(f"{path}: {section['name']!r} lacks an argument ({error}).") from error


def rate_schedule(section: Mapping, path: str, rounds: int) -> optax.Schedule | None:
    """A schedule of optax by name, as factors of a learning rate; None for ``none``.

    The schedule is asked for 0 in the first round. Arguments left out are filled in: ``init_value`` and ``peak_value``
    by 1, ``decay_steps`` and ``transition_steps`` (or 0 for them) by ``rounds``; a warm-up begins with equal steps.

    Raises:
        UsageError: an unknown name or argument, a missing one, or a factor that is negative or no number.
    """
    if section["name"] == "none":
        return None
    options = _fill_rate_defaults(section, path, rounds)
    make = bind_options(RATE_SCHEDULES, options, path)
    try:
        schedule = make()
        factors = [float(rate_factor_of_round(schedule, t)) for t in range(1, rounds + 1)]
    except (TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        raise UsageError(f"{path}: {section['name']!r} lacks an argument, or one does not fit ({reason}).") from error
    for t, factor in enumerate(factors, 1):
        if not 0 <= factor < float("inf"):
            raise UsageError(
                f"{path} multiplies the learning rate by {factor:g} in round {t}: a factor is a number, not negative."
            )
    return schedule


def _fill_rate_defaults(section: Mapping, path: str, rounds: int) -> dict[str, Any]:
    """The section with what it leaves out, and with whole numbers as the keys that a stored config holds as text."""
    takes = inspect.signature(lookup(RATE_SCHEDULES, section["name"], f"{path}.name")).parameters
    filled = dict(section)
    rises = "warmup_steps" in takes
    for key, value in (("init_value", 1 / (filled.get("warmup_steps", 0) + 1) if rises else 1.0), ("peak_value", 1.0)):
        if key in takes:
            filled.setdefault(key, value)
    for key in ("decay_steps", "transition_steps"):
        if key in takes and not filled.get(key):
            filled[key] = rounds
    if filled.get("boundaries_and_scales"):
        filled["boundaries_and_scales"] = {int(at): scale for at, scale in filled["boundaries_and_scales"].items()}
    return filled
