"""The only readers of a ConfigDict: defaults, presets, methods, and what a config becomes."""

from fedsparse_jax.config.build import experiment_from_config, federation_from_config, load_config
from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.config.host_scans import federation_on_hosts
from fedsparse_jax.config.method import recipe_from_config
from fedsparse_jax.config.network import algorithm_from_config, model_from_config
from fedsparse_jax.config.overrides import override
from fedsparse_jax.config.presets import base_config, parse_forms, shrink_for_smoke_test, sparsify
from fedsparse_jax.config.registry import OPTIMIZERS
from fedsparse_jax.config.saved_runs import chosen_round, load_run, saved_rounds, upgrade_config
from fedsparse_jax.config.scans import read_scans
