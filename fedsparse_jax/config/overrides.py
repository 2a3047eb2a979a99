"""Keys of a config that are set one by one, as on a command line: which there are, and what becomes of the others.

A section that picks a member of a registry has that member's arguments as its keys, whether the config file names them
or not. Where another member is picked, the arguments that only the one before takes are left behind.
"""

import ast
import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict

from fedsparse_jax.attacks.poison import POISONS
from fedsparse_jax.config.registry import OPTIMIZERS, RATE_SCHEDULES, lookup, refuse_option
from fedsparse_jax.config.typed_values import NO_KIND, kinds_of, value_of_text
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.augmentation import AUGMENTATIONS
from fedsparse_jax.data.image_sources import IMAGE_SOURCES
from fedsparse_jax.data.partitions import PARTITIONS
from fedsparse_jax.data.scan_sources import SCAN_SOURCES
from fedsparse_jax.federated.aggregation import AGGREGATORS
from fedsparse_jax.federated.named_hooks import HOOKS
from fedsparse_jax.models import MODELS
from fedsparse_jax.runs.migrations import RENAMED_KEYS
from fedsparse_jax.sparsity.regrowth import REGROWTH
from fedsparse_jax.sparsity.schedules import SCHEDULES

SUPPLIED_TO_SOURCES = ("root", "path", "cache", "progress", "need_age")  # by `scans.list_scans`


class Choice(NamedTuple):
    """A section that picks a member of a registry, and whose other keys are the member's arguments."""

    members: Mapping[str, Callable]
    supplied: tuple[str, ...] = ()  # parameters that the code supplies and no config
    own: tuple[str, ...] = ()  # keys of the section that are no arguments
    may_be_none: bool = False  # whether "none" is a name, too


CHOICES: dict[str, Choice] = {
    "partition": Choice(PARTITIONS, ("ages", "sites", "num_clients", "seed"), own=("num_clients",)),
    "model": Choice(MODELS, ("shape", "channels"), own=("init_from", "init_which", "init_masks")),
    "client.optimizer": Choice(OPTIMIZERS),
    "client.learning_rate_schedule": Choice(RATE_SCHEDULES, may_be_none=True),
    "client.augmentation": Choice(AUGMENTATIONS, may_be_none=True),
    "server.optimizer": Choice(OPTIMIZERS),
    "server.learning_rate_schedule": Choice(RATE_SCHEDULES, may_be_none=True),
    "aggregation": Choice(AGGREGATORS, ("params", "masks", "weights")),
    "pruning.schedule": Choice(SCHEDULES, ("rounds",)),
    "regrowth.rule": Choice(REGROWTH),
    "hooks": Choice(HOOKS, ("pruning",), may_be_none=True),
    "poison": Choice(POISONS, own=("clients",), may_be_none=True),
}
OPTIONS, SOURCE = "data.options", "data.source"  # the one section whose member is named elsewhere
KINDS: dict[str, Any] = {  # where a default says too little, or there is none
    "partition.num_clients": int | Literal["auto"],
    "model.init_from": str,
    "model.init_which": str,
    "model.init_masks": bool,
}


def override(config: ConfigDict, settings: Iterable[tuple[str, str]]) -> ConfigDict:
    """A config with some keys set anew, in any order: whole sections first, then names, then all others.

    Args:
        config: complete; it stays as it is.
        settings: ``(key, text)`` such as ``("data.options.age_col", "age_at_scan")``; of one key the last counts.

    Raises:
        UsageError: no such key, no such member, or a text that is no value of the key.
    """
    config = config.copy_and_resolve_references()
    config.unlock()
    texts = dict(settings)
    for key in texts:
        if key in RENAMED_KEYS:
            raise UsageError(f"the config's key {key} is now called {RENAMED_KEYS[key]}.")
    for key in sorted(texts, key=lambda key: _rank(config, key)):
        _set(config, key, texts[key])
    return config.lock()


def _rank(config: ConfigDict, key: str) -> tuple[bool, bool]:
    is_name = key == SOURCE or (key.rpartition(".")[0] in CHOICES and key.endswith(".name"))
    return not isinstance(_value_at(config, key), ConfigDict), not is_name


def _set(config: ConfigDict, key: str, text: str) -> None:
    path, _, name = key.rpartition(".")
    if key == SOURCE:
        config.data.source = text
        _leave_behind(config, OPTIONS)
    elif path in CHOICES and name == "name":
        _section(config, path).name = text
        _leave_behind(config, path)
    elif isinstance(_value_at(config, key), ConfigDict) and path not in CHOICES:  # an argument may be a dict
        _set_section(config, key, text)
    else:
        kind = _kind(config, path, name)
        with config.ignore_type():
            _section(config, path)[name] = _typed(key, text, kind)


def _kind(config: ConfigDict, path: str, name: str) -> Any:
    """What a key may hold; refuses a key that there is not."""
    key, section = f"{path}.{name}".lstrip("."), _section(config, path)
    if path == OPTIONS or (path in CHOICES and name not in CHOICES[path].own):
        member, kinds = _arguments(config, path)
        if name not in kinds:
            refuse_option(path, name, member, list(kinds), _others_with(path, name))
        kind, before = kinds[name], section.get(name)
        return type(before) if kind is NO_KIND and before is not None else kind
    if name not in section and key not in KINDS:
        raise _no_key(key, name, section)
    value = section.get(name)
    same = tuple[type(value[0]), ...] if isinstance(value, tuple) and value else type(value)  # type: ignore[misc]
    return KINDS.get(key, NO_KIND if value is None else same)


def _typed(key: str, text: str, kind: Any) -> Any:
    try:
        return value_of_text(text, kind)
    except ValueError as error:
        raise UsageError(f"{key} is {text!r}: it must be {error}.") from None


def _set_section(config: ConfigDict, key: str, text: str) -> None:
    """Sets the keys of a whole section, which is written as a dict of Python."""
    try:
        given = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        given = None
    if not isinstance(given, dict):
        inner = "name" if key in CHOICES else next(iter(_section(config, key)), "KEY")
        example = f"{key}.{inner}={text}"
        raise UsageError(f"{key} is a section, and {text!r} is none: set one key of it, such as {example}, or a dict.")
    section = _section(config, key)
    if key == OPTIONS or (key in CHOICES and "name" in given):
        own = CHOICES[key].own if key in CHOICES else ()
        for old in [old for old in section if old not in own and old != "name"]:
            del section[old]
    for name, value in sorted(given.items(), key=lambda item: item[0] != "name"):
        _set(config, f"{key}.{name}", value if isinstance(value, str) else repr(value))


def _leave_behind(config: ConfigDict, path: str) -> None:
    """Forgets the arguments of the member that was chosen before, where the new one does not take them."""
    section, (_, kinds) = _section(config, path), _arguments(config, path)
    keep = {"name", *kinds, *(CHOICES[path].own if path in CHOICES else ())}
    for name in [name for name in section if name not in keep]:
        del section[name]


def _arguments(config: ConfigDict, path: str) -> tuple[str, dict[str, Any]]:
    """The member that a section picks, and the kinds of the arguments that a config may set."""
    choice = _choice(path)
    member = config.data.source if path == OPTIONS else _section(config, path).name
    if member == "none" and choice.may_be_none:
        return member, {}
    function = lookup(choice.members, member, SOURCE if path == OPTIONS else f"{path}.name")
    return member, {name: kind for name, kind in kinds_of(function).items() if name not in choice.supplied}


def _choice(path: str) -> Choice:
    """How a section picks; sources of scans say whose parameters their options are, and images have none."""
    if path in CHOICES:
        return CHOICES[path]
    of_scans = {name: source.options_of for name, source in SCAN_SOURCES.items()}
    return Choice({**of_scans, **{name: lambda: None for name in IMAGE_SOURCES}}, SUPPLIED_TO_SOURCES)


def _others_with(path: str, name: str) -> list[str]:
    """Members of the same registry that take an argument."""
    choice = _choice(path)
    takes = lambda function: name not in choice.supplied and name in kinds_of(function)
    return [member for member, function in choice.members.items() if takes(function)]


def _section(config: ConfigDict, path: str) -> ConfigDict:
    """The section of a path, the config itself for an empty one; refuses a path that leads nowhere."""
    for part in filter(None, path.split(".")):
        if not isinstance(config.get(part), ConfigDict):
            raise _no_key(path, part, config)
        config = config[part]
    return config


def _value_at(config: ConfigDict, key: str) -> Any:
    """What a key holds, None where there is no such key."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, ConfigDict) else None
    return config


def _no_key(key: str, name: str, section: ConfigDict) -> UsageError:
    close = difflib.get_close_matches(name, list(section), 1)
    of = f" ({key})" if key != name else ""
    hint = f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(section)}."
    return UsageError(f"The config has no key {name!r}{of}{hint}")
