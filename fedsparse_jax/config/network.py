"""The network and the pure functions that a config describes, without any data: all that a run folder needs to open."""

import inspect

import numpy as np
from ml_collections import ConfigDict

from fedsparse_jax.attacks.poison import POISONS
from fedsparse_jax.config.method import recipe_from_config
from fedsparse_jax.config.registry import argument_path, bind_options, lookup
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import FedAlgorithm, Masks, Model
from fedsparse_jax.federated.algorithm import build_algorithm
from fedsparse_jax.federated.poisoning import poisoned
from fedsparse_jax.models import MODELS
from fedsparse_jax.models.from_nnx import in_precision

OF_WARM_START = ("init_from", "init_which", "init_masks", "init_sha256")  # keys of model that no network takes


def model_from_config(config: ConfigDict, train_ages=()) -> tuple[Model, dict]:
    """The network with weights from the seed, and its section of the config with every number filled in.

    ``output_mean`` and ``output_scale`` default to mean and SD of the training ages. In a real federation these
    two numbers are the sites' size-weighted statistics, agreed on before round 1.
    """
    section = {key: value for key, value in config.model.items() if key not in OF_WARM_START}
    takes = inspect.signature(lookup(MODELS, section["name"], "model.name")).parameters
    for key, statistic in (("output_mean", np.mean), ("output_scale", np.std)):
        if key in takes and section.get(key, takes[key].default) is None and not section.get("classes"):
            section[key] = float(statistic(train_ages)) if len(train_ages) else 1.0
    make = bind_options(MODELS, section, "model", "shape", "channels")
    channels = {"channels": config.data.channels} if config.data.channels != 1 else {}
    if channels and "channels" not in takes:
        raise UsageError(
            f"model.name is {section['name']!r}, which takes one channel, but data.channels is "
            f"{config.data.channels}; choose another network, or set data.channels to 1."
        )
    with argument_path("model", shape="data.shape", precision="precision"):
        return in_precision(make(tuple(config.data.shape), **channels), config.precision), section


def algorithm_from_config(
    config: ConfigDict, network: Model, usual_loss: float = 0.0, initial_masks: Masks | None = None
) -> FedAlgorithm:
    """The pure functions that the config describes.

    Args:
        config, network, usual_loss: see `recipe_from_config`.
        initial_masks: of a start from weights that are pruned already.
    """
    recipe = recipe_from_config(config, network, usual_loss)._replace(initial_masks=initial_masks)
    with argument_path("execution", personal="client.personal"):
        algorithm = build_algorithm(recipe)
    if config.poison.name == "none":
        return algorithm
    make = bind_options(POISONS, {key: value for key, value in config.poison.items() if key != "clients"}, "poison")
    with argument_path("poison"):
        return poisoned(algorithm, make(), range(config.poison.clients), recipe.client_map)
