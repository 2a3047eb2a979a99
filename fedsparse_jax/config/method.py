"""From the method half of a config to a `federated.Recipe`: what trains, prunes, regrows and merges.

A section of the config names a member of a registry, and its other keys are that member's arguments; `choose`
checks both, so that a misspelt name or key is one clear sentence and not a traceback. `build` does the other half.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from fedsparse_jax.core.losses import LOSSES
from fedsparse_jax.core.types import Model, UsageError
from fedsparse_jax.federated import algorithm, client_step
from fedsparse_jax.federated.aggregation import AGGREGATORS
from fedsparse_jax.sparsity import pruning, regrowth, schedules
from fedsparse_jax.sparsity.criteria import CRITERIA


def recipe(config: ConfigDict, network: Model) -> algorithm.Recipe:
    """The method that the config describes."""
    client = config.client
    states = {"fresh": False, "kept": True}
    tx = optimizer(client.optimizer, "client.optimizer")
    return algorithm.Recipe(
        model=network,
        loss=member(LOSSES, client.loss, "client.loss"),
        client_tx=optax.chain(optax.clip_by_global_norm(client.clip), tx) if client.clip else tx,
        server_tx=optimizer(config.server.optimizer, "server.optimizer"),
        aggregate=aggregator(config),
        pruning=pruning_of(config),
        regrowth=regrowth_of(config),
        proximal=client.proximal,
        towards=client.towards,
        privacy=privacy(config),
        keep_opt_state=member(states, client.optimizer_state, "client.optimizer_state"),
        num_clients=config.partition.num_clients,
        client_map=client_map(config.execution.client_map),
        devices=config.execution.devices,
    )


def privacy(config: ConfigDict) -> client_step.Privacy | None:
    """How the local steps hide their examples, if they do."""
    clip, noise, delta = (config.privacy[key] for key in ("clip", "noise", "delta"))
    for key, value in (("clip", clip), ("noise", noise)):
        if not value >= 0:
            raise UsageError(f"privacy.{key} is {value}: it must not be negative.")
    if not 0 < delta < 1:
        raise UsageError(f"privacy.delta is {delta}: it is a chance, between 0 and 1.")
    if (clip > 0) != (noise > 0):
        raise UsageError(
            f"privacy.clip is {clip} and privacy.noise is {noise}: only both together hide anybody; set both, or "
            "neither."
        )
    return client_step.Privacy(clip, noise) if clip else None


def aggregator(config: ConfigDict) -> Callable:
    """How clients are merged; tried on shapes, so that a wrong option is refused before any data are read."""
    section = dict(config.aggregation)
    if str(section.get("quorum", "")).replace(".", "", 1).isdigit():
        section["quorum"] = float(section["quorum"])  # from the command line it comes as text
    rule = choose(AGGREGATORS, section, "aggregation", "params", "masks", "weights")
    leaf = lambda dtype: {"w": jax.ShapeDtypeStruct((2, 1), dtype)}
    jax.eval_shape(rule, leaf(np.float32), leaf(bool), jax.ShapeDtypeStruct((2,), np.float32))
    return rule


def pruning_of(config: ConfigDict) -> pruning.Pruning:
    """Who prunes, by what, how much and when."""
    rules = config.pruning
    schedule = filled(config, rules.schedule, schedules.SCHEDULES, "pruning.schedule")
    placement = () if rules.placement == "none" else tuple(rules.placement.split("+"))
    curve = choose(schedules.SCHEDULES, schedule, "pruning.schedule")()
    if "init" in placement and rules.sparsity > 0 and float(curve(0)) == 0:
        raise UsageError(
            f"pruning.placement {rules.placement!r} prunes before round 1, but the schedule {schedule['name']!r} asks "
            "for no sparsity there; take the schedule 'constant', or leave out 'init'."
        )
    if placement == ("init",) and float(curve(0)) != float(curve(config.rounds)):
        raise UsageError(
            "pruning.placement 'init' prunes once, before round 1, but the schedule goes on rising; take the schedule "
            "'constant', or add a placement."
        )
    if rules.floor > 0 and not placement:
        raise UsageError(
            "pruning.floor guards against pruning, but pruning.placement is 'none'; set one of the two."
        )
    if rules.gate > 1 or (rules.gate > 0 and "arrival" not in placement):
        raise UsageError(
            f"pruning.gate is {rules.gate}: it is a share of right predictions, up to 1, and goes with "
            "pruning.placement 'arrival'."
        )
    if rules.gate > 0 and config.task != "classification":
        raise UsageError("pruning.gate is a share of right predictions; with task 'regression' set it to 0.")
    return pruning.Pruning(
        criterion=member(CRITERIA, rules.criterion, "pruning.criterion"),
        scope=pruning.with_floor(member(pruning.SCOPES, rules.scope, "pruning.scope"), rules.floor),
        schedule=curve,
        prunable=member(pruning.PRUNABLE, rules.prunable, "pruning.prunable"),
        placement=placement,
        iterations=rules.iterations,
        over=rules.over,
        gate=rules.gate,
        rewind=rules.rewind,
    )


def remarks(config: ConfigDict, rule: pruning.Pruning) -> tuple[str, ...]:
    """What a user would want to know before the first round: settings that do not fit ``rounds``."""
    found = []
    reached, final = float(rule.schedule(config.rounds)), config.pruning.sparsity
    if rule.placement and reached < min(final, float(rule.schedule(10**6))) - 1e-6:
        found.append(
            f"Note: after {config.rounds} rounds the schedule asks for a sparsity of {reached:.3f}, not {final}; "
            "pruning.schedule ends later (its end, at or rate)."
        )
    if config.solo_rounds >= config.rounds:
        found.append(
            f"Note: solo_rounds is {config.solo_rounds} of {config.rounds} rounds: one client trains alone."
        )
    return tuple(found)


def regrowth_of(config: ConfigDict) -> regrowth.Regrowth | None:
    """What may come back, if anything."""
    section = config.regrowth
    if section.placement == "none":
        return None
    member(dict.fromkeys(regrowth.PLACEMENTS), section.placement, "regrowth.placement")
    rule = filled(config, section.rule, regrowth.REGROWTH, "regrowth.rule")
    if rule["name"] == "swap" and config.pruning.placement == "none":
        raise UsageError(
            "regrowth.rule 'swap' puts as many weights back as it drops, but pruning.placement 'none' keeps all; set "
            "pruning.placement to 'init+server'."
        )
    own = config.pruning.placement.split("+")
    if section.placement == "client" and not {"server", "arrival"} & set(own):
        raise UsageError(
            "regrowth.placement 'client' lets clients grow different weights, so that their union gets denser every "
            "round; add 'server' to pruning.placement, which prunes it back."
        )
    return regrowth.Regrowth(
        rule=choose(regrowth.REGROWTH, rule, "regrowth.rule")(),
        criterion=member(CRITERIA, section.criterion, "regrowth.criterion"),
        placement=section.placement,
        begin=section.begin,
        every=section.every,
        end=section.end or config.rounds,
    )


def filled(config: ConfigDict, section: Mapping, registry: Mapping[str, Callable], path: str) -> dict:
    """The section with what it leaves out: ``final`` is pruning.sparsity; ``end``, and 0 for a round, the last one."""
    takes = inspect.signature(member(registry, section["name"], f"{path}.name")).parameters
    found = dict(section)
    if "final" in takes:
        found.setdefault("final", config.pruning.sparsity)
    if "end" in takes:
        found.setdefault("end", 0)
    return {**found, **{key: config.rounds for key in ("end", "at") if found.get(key) == 0}}


def client_map(setting: str | int) -> str | int:
    """``auto`` resolved: one client after another on a CPU, all at once on an accelerator."""
    if setting == "auto":
        return "scan" if jax.default_backend() == "cpu" else "vmap"
    return int(setting) if str(setting).isdigit() else setting


# --- a section of the config --------------------------------------------------------------------


def choose(registry: Mapping[str, Callable[..., Any]], section: Mapping, path: str, *given: str) -> Callable:
    """The member that ``section`` names, with the section's other keys bound as arguments.

    Args:
        registry: name to function.
        section: ``name`` and keyword arguments.
        path: where the section stands in the config, for the error message.
        given: parameters that the caller supplies later; the config may not set them.

    Raises:
        UsageError: an unknown name, or a key that the function does not take.
    """
    options = {key: value for key, value in section.items() if key != "name"}
    function = member(registry, section["name"], f"{path}.name")
    parameters = inspect.signature(function).parameters
    takes = [name for name in parameters if name not in given]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in options:
        if key not in takes and not anything:
            raise UsageError(
                f"{path}.{key} is not an option of {section['name']!r}, which takes: {', '.join(takes) or 'none'}."
            )
    return functools.partial(function, **options)


def member(registry: Mapping[str, Any], name: str, path: str):
    """``registry[name]``, or a sentence that lists the names there are."""
    if name not in registry:
        raise UsageError(f"{path} is {name!r}: it must be one of {', '.join(registry)}.")
    return registry[name]


def optimizer(section: Mapping, path: str) -> optax.GradientTransformation:
    """An optimizer of optax by name, such as ``sgd``, ``adam`` or ``adamw``, with its arguments.

    Raises:
        UsageError: an unknown name or argument, or an optimizer that needs more than the gradient and the params.
    """
    functions = {name: getattr(optax, name) for name in dir(optax)}
    known: dict[str, Callable[..., Any]] = {n: f for n, f in functions.items() if _makes_optimizer(f)}
    tx = choose(known, section, path)()
    leaf = {"w": jax.ShapeDtypeStruct((2, 3), np.float32)}
    try:
        state = jax.eval_shape(tx.init, leaf)
        jax.eval_shape(tx.update, leaf, state, leaf)
    except Exception as error:  # whatever an optimizer raises that wants a loss value, or a line search
        raise UsageError(
            f"{path}.name is {section['name']!r}, which needs more than a gradient ({type(error).__name__}); choose "
            "another optimizer of optax."
        ) from error
    return tx


def _makes_optimizer(thing) -> bool:
    return inspect.isfunction(thing) and "learning_rate" in inspect.signature(thing).parameters
