"""The method half of a config as a `federated.Recipe`: what trains, prunes, regrows and merges."""

import inspect
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from fedsparse_jax.config.registry import OPTIMIZERS, argument_path, bind_options, lookup, optimizer, rate_schedule
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.losses import LOSSES
from fedsparse_jax.core.optimizers import rate_factor_of_round, with_weight_decay
from fedsparse_jax.core.types import Model, Params
from fedsparse_jax.data.augmentation import AUGMENTATIONS
from fedsparse_jax.data.federation import cohort_size
from fedsparse_jax.federated import hooks
from fedsparse_jax.federated.aggregation import AGGREGATORS
from fedsparse_jax.federated.client_step import PrivateSteps
from fedsparse_jax.federated.hooks import Hook
from fedsparse_jax.federated.named_hooks import HOOKS
from fedsparse_jax.federated.personal import leaves_named
from fedsparse_jax.federated.recipe import ANCHORS, Recipe
from fedsparse_jax.federated.round_info import prunable_share
from fedsparse_jax.federated.sound_clients import Limits
from fedsparse_jax.federated.sums import SUM_RULES
from fedsparse_jax.sparsity.criteria import CRITERIA
from fedsparse_jax.sparsity.pruning import Pruning
from fedsparse_jax.sparsity.regrowth import REGROWTH, Regrowth
from fedsparse_jax.sparsity.schedules import SCHEDULES
from fedsparse_jax.sparsity.scopes import PRUNABLE, SCOPES, with_floor

RATE_PATHS = ("client.learning_rate_schedule", "server.learning_rate_schedule")
PLACEMENTS = ("init", "client", "server")
REGROWTH_PLACEMENTS: dict[str, Callable[..., Hook]] = {
    "client": hooks.regrow_on_clients,
    "server": hooks.regrow_on_server,
}


def recipe_from_config(config: ConfigDict, network: Model, usual_loss: float = 0.0) -> Recipe:
    """The method that the config describes.

    Args:
        config: complete.
        network: from `network.model_from_config`.
        usual_loss: mean loss of a model that knows nothing, where that is known.
    """
    client, opt_states = config.client, {"fresh": False, "kept": True}
    lookup(dict.fromkeys(ANCHORS), client.proximal_anchor, "client.proximal_anchor")
    return Recipe(
        model=network,
        loss=lookup(LOSSES, client.loss, "client.loss"),
        client_tx=client_optimizer(config),
        server_tx=optimizer(config.server.optimizer, "server.optimizer"),
        aggregate=aggregator_from_config(config),
        hooks=hooks_from_config(config),
        proximal=client.proximal,
        proximal_anchor=client.proximal_anchor,
        private=private_steps_from_config(config),
        personal=leaves_named(client.personal) if client.personal else None,
        client_rate=rate_schedule(client.learning_rate_schedule, RATE_PATHS[0], config.rounds),
        server_rate=rate_schedule(config.server.learning_rate_schedule, RATE_PATHS[1], config.rounds),
        augment=augmentation_from_config(config),
        keep_opt_state=lookup(opt_states, client.optimizer_state, "client.optimizer_state"),
        norm_bound=config.server.norm_bound,
        limits=Limits(config.faults.explosion, usual_loss, config.faults.min_clients),
        num_clients=config.partition.num_clients,
        client_map=resolve_client_map(config.execution.client_map),
        devices=config.execution.devices,
        of_sums=sum_rule_from_config(config) if config.execution.clients_held else None,
    )


def client_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """The clients' optimizer behind clipping, and before weight decay.

    Raises:
        UsageError: weight decay where the optimizer has its own.
    """
    section, clip, decay = config.client.optimizer, config.client.clip, config.client.weight_decay
    tx = optimizer(section, "client.optimizer")
    if decay:
        own = [key for key in inspect.signature(OPTIMIZERS[section.name]).parameters if key.startswith("weight_decay")]
        if own:
            raise UsageError(
                f"client.weight_decay is {decay}, but client.optimizer {section.name!r} decays weights itself; set "
                f"client.weight_decay to 0.0 and client.optimizer.{own[0]} to that."
            )
        tx = with_weight_decay(tx, section.learning_rate * decay)
    return optax.chain(optax.clip_by_global_norm(clip), tx) if clip else tx


def augmentation_from_config(config: ConfigDict) -> Callable | None:
    """What is done to the inputs of local steps; None for nothing."""
    section = config.client.augmentation
    if section.name == "none":
        return None
    make = bind_options(AUGMENTATIONS, section, "client.augmentation")
    with argument_path("client.augmentation"):
        return make()


def private_steps_from_config(config: ConfigDict) -> PrivateSteps | None:
    """How the local steps hide their examples, if they do."""
    clip, noise, delta = (config.privacy[key] for key in ("clip", "noise", "delta"))
    for key, value in (("clip", clip), ("noise", noise)):
        if not value >= 0:
            raise UsageError(f"privacy.{key} is {value}: it must not be negative.")
    if not 0 < delta < 1:
        raise UsageError(f"privacy.delta is {delta}: it is a chance, between 0 and 1.")
    lookup(dict.fromkeys(("scan", "person")), config.privacy.unit, "privacy.unit")
    if (clip > 0) != (noise > 0):
        raise UsageError(
            f"privacy.clip is {clip} and privacy.noise is {noise}: only both together hide anybody; set both, or "
            "neither."
        )
    return PrivateSteps(clip, noise) if clip else None


def aggregator_from_config(config: ConfigDict) -> Callable:
    """How clients are merged; tried on shapes, so that a wrong option is refused before any data are read."""
    section = _with_numbers(dict(config.aggregation))
    rule = bind_options(AGGREGATORS, section, "aggregation", "params", "masks", "weights")
    leaf = lambda dtype: {"w": jax.ShapeDtypeStruct((2, 1), dtype)}
    with argument_path("aggregation"):
        jax.eval_shape(rule, leaf(np.float32), leaf(bool), jax.ShapeDtypeStruct((2,), np.float32))
    return rule


def sum_rule_from_config(config: ConfigDict) -> Callable:
    """How clients are merged who come one group after another.

    Raises:
        UsageError: the rule of the config, or an option of it, needs all clients at once.
    """
    section = dict(config.aggregation)
    takes = inspect.signature(SUM_RULES.get(section["name"], SUM_RULES["mean"])).parameters
    if section["name"] not in SUM_RULES or not {*section} <= {"name", *takes}:
        told = ", ".join(f"{key} {value!r}" for key, value in section.items())
        raise UsageError(
            f"aggregation ({told}) needs all clients at once; set execution.clients_held to 0, or choose one of "
            f"{', '.join(SUM_RULES)} without further options than quorum."
        )
    return bind_options(SUM_RULES, _with_numbers(section), "aggregation", "sums")


def _with_numbers(section: dict) -> dict:
    """The section with a quorum that came from the command line as text, as the number that it is."""
    if str(section.get("quorum", "")).replace(".", "", 1).isdigit():
        section["quorum"] = float(section["quorum"])
    return section


def hooks_from_config(config: ConfigDict) -> tuple[Hook, ...]:
    """Who prunes and regrows, in the order in which they act."""
    rules, rule, places = config.pruning, pruning_from_config(config), placements(config)
    _check_placement(config, rule)
    lookup(dict.fromkeys(hooks.SCORED_CLIENTS), rules.scored_clients, "pruning.scored_clients")
    chosen: list[Hook] = []
    if "init" in places:
        chosen.append(hooks.prune_at_init(rule, iterations=rules.iterations, scored_clients=rules.scored_clients))
    if config.hooks.name != "none":
        make = bind_options(HOOKS, config.hooks, "hooks", "pruning")
        with argument_path("hooks"):
            chosen.append(make(rule))
    if "client" in places:
        chosen.append(hooks.prune_on_clients(rule))
    if "server" in places:
        chosen.append(hooks.prune_on_server(rule))
    if config.regrowth.placement != "none":
        place = lookup(REGROWTH_PLACEMENTS, config.regrowth.placement, "regrowth.placement")
        chosen.append(place(rule, regrowth_from_config(config)))
    return tuple(chosen)


def placements(config: ConfigDict) -> tuple[str, ...]:
    """The parts of ``pruning.placement``; none for ``none``."""
    text = config.pruning.placement
    places = () if text == "none" else tuple(text.split("+"))
    for place in places:
        if place not in PLACEMENTS:
            raise UsageError(
                f"pruning.placement is {text!r}: it must be none, or some of {', '.join(PLACEMENTS)}, joined by +."
            )
    return places


def pruning_from_config(config: ConfigDict) -> Pruning:
    """By what criterion, scope and schedule a method prunes."""
    rules = config.pruning
    section = fill_schedule_defaults(config, rules.schedule, SCHEDULES, "pruning.schedule")
    make = bind_options(SCHEDULES, section, "pruning.schedule")
    with argument_path("pruning.schedule"):
        schedule = make()
    with argument_path("pruning"):
        scope = with_floor(lookup(SCOPES, rules.scope, "pruning.scope"), rules.floor)
    return Pruning(
        criterion=lookup(CRITERIA, rules.criterion, "pruning.criterion"),
        scope=scope,
        schedule=schedule,
        prunable=_shared_only(lookup(PRUNABLE, rules.prunable, "pruning.prunable"), config.client.personal),
    )


def _shared_only(prunable: Callable, personal: Sequence[str]) -> Callable:
    """The choice of prunable leaves without those that stay with their client, which nobody prunes."""
    if not personal:
        return prunable
    own = leaves_named(personal)
    return lambda params: jax.tree.map(lambda may, stays: may and not stays, prunable(params), own(params))


def final_sparsity(config: ConfigDict, recipe: Recipe, params: Params) -> float:
    """The share of all weights that the method asks to be zero in its last round; 0 for a dense method.

    Args:
        config: complete.
        recipe: that of the config.
        params: of its network, or their shapes.
    """
    if not any(hook.target_sparsity for hook in recipe.hooks):
        return 0.0
    return float(pruning_from_config(config).schedule(config.rounds)) * prunable_share(recipe, params)


def _check_placement(config: ConfigDict, rule: Pruning) -> None:
    """Refuses a schedule that does not fit the place of the pruning, and guards of a pruning that is not there."""
    rules, places = config.pruning, placements(config)
    at_init = float(rule.schedule(0))
    if "init" in places and rules.sparsity > 0 and at_init == 0:
        raise UsageError(
            f"pruning.placement {rules.placement!r} prunes before round 1, but the schedule {rules.schedule.name!r} "
            "asks for no sparsity there; take the schedule 'constant', or leave out 'init'."
        )
    if places == ("init",) and config.hooks.name == "none" and at_init != float(rule.schedule(config.rounds)):
        raise UsageError(
            "pruning.placement 'init' prunes once, before round 1, but the schedule goes on rising; take the schedule "
            "'constant', or add a placement."
        )
    if rules.floor > 0 and not places and config.hooks.name == "none":
        raise UsageError("pruning.floor guards against pruning, but pruning.placement is 'none'; set one of the two.")
    if config.hooks.name == "error_feedback" and "server" not in places:
        raise UsageError(
            "hooks.name 'error_feedback' lets pruned weights come back, and nobody prunes them again; add 'server' to "
            "pruning.placement."
        )
    if config.hooks.get("min_accuracy", 0) and config.task != "classification":
        raise UsageError("hooks.min_accuracy is a share of right predictions; with task 'regression' set it to 0.")


def remarks_on_config(config: ConfigDict) -> tuple[str, ...]:
    """What a user would want to know before the first round: settings that do not fit ``rounds``."""
    remarks = []
    schedule, final = pruning_from_config(config).schedule, config.pruning.sparsity
    reached = float(schedule(config.rounds))
    prunes = bool(placements(config)) or config.hooks.name != "none"
    if prunes and reached < min(final, float(schedule(10**6))) - 1e-6:
        remarks.append(
            f"Note: after {config.rounds} rounds the schedule asks for a sparsity of {reached:.3f}, not {final}; "
            "pruning.schedule ends later (its end, at or rate)."
        )
    before = float(schedule(config.rounds - 1)) if config.rounds > 1 else reached
    if prunes and config.data.validation_share and before != reached:
        remarks.append(
            f"Note: the schedule reaches its sparsity in round {config.rounds}, the last one, so that no other can be "
            "the best on validation; let it end earlier (pruning.schedule: its end or at), or train for more rounds."
        )
    for path, section in zip(RATE_PATHS, (config.client, config.server), strict=True):
        rate = rate_schedule(section.learning_rate_schedule, path, config.rounds)
        still = [t for t in range(1, config.rounds + 1) if rate and rate_factor_of_round(rate, t) == 0]
        if still:
            remarks.append(
                f"Note: {path} makes the learning rate 0 in {len(still)} of {config.rounds} rounds, the first of them "
                f"round {still[0]}; nothing is learned there."
            )
    if config.solo_rounds >= config.rounds:
        remarks.append(f"Note: solo_rounds is {config.solo_rounds} of {config.rounds} rounds: one client trains alone.")
    options, size = dict(config.aggregation), cohort_size(config.partition.num_clients, config.participation)
    trim = options.get("trim", inspect.signature(AGGREGATORS["trimmed_mean"]).parameters["trim"].default)
    if options["name"] == "trimmed_mean" and trim * size + 1e-6 < 1:
        remarks.append(
            f"Note: aggregation.trim {trim} of {size} clients cuts nobody off; from {1 / size:.3f} on it cuts one at "
            "either end."
        )
    if config.faults.stragglers and not config.faults.deadline:
        remarks.append(
            "Note: faults.stragglers without faults.deadline: the server waits for all, and nothing changes."
        )
    if config.privacy.noise and config.privacy.noise_from_seed:
        remarks.append(
            "Note: privacy.noise_from_seed: every run of this seed adds the same noise, and whoever knows the seed can "
            "take it away; epsilon holds in a simulation of one run."
        )
    return tuple(remarks)


def regrowth_from_config(config: ConfigDict) -> Regrowth:
    """When and by what rule weights come back."""
    section = config.regrowth
    rule = fill_schedule_defaults(config, section.rule, REGROWTH, "regrowth.rule")
    if rule["name"] == "swap" and not placements(config) and config.hooks.name == "none":
        raise UsageError(
            "regrowth.rule 'swap' puts as many weights back as it drops, but pruning.placement 'none' keeps all; set "
            "pruning.placement to 'init+server'."
        )
    if section.placement == "client" and "server" not in placements(config) and config.hooks.name == "none":
        raise UsageError(
            "regrowth.placement 'client' lets clients grow different weights, so that their union gets denser every "
            "round; add 'server' to pruning.placement, which prunes it back."
        )
    make = bind_options(REGROWTH, rule, "regrowth.rule")
    with argument_path("regrowth.rule"):
        return Regrowth(
            rule=make(),
            criterion=lookup(CRITERIA, section.criterion, "regrowth.criterion"),
            begin=section.begin,
            every=section.every,
            end=section.end or config.rounds,
        )


def fill_schedule_defaults(config: ConfigDict, section: Mapping, registry: Mapping[str, Callable], path: str) -> dict:
    """The section with what it leaves out: ``final`` is pruning.sparsity, ``rounds`` those of the run; ``end``, and 0
    for a round, the last one.
    """
    takes = inspect.signature(lookup(registry, section["name"], f"{path}.name")).parameters
    filled = dict(section)
    if "final" in takes:
        filled.setdefault("final", config.pruning.sparsity)
    if "rounds" in takes:
        filled["rounds"] = config.rounds
    if "end" in takes:
        filled.setdefault("end", 0)
    return {**filled, **{key: config.rounds for key in ("end", "at") if filled.get(key) == 0}}


def resolve_client_map(setting: str | int) -> str | int:
    """``auto`` resolved: one client after another on a CPU, all at once on an accelerator."""
    if setting == "auto":
        return "scan" if jax.default_backend() == "cpu" else "vmap"
    return int(setting) if str(setting).isdigit() else setting
