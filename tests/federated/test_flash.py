"""FLASH beside the golden rounds of tests/test_methods.py: densities from a warm-up and parts by budgets, by hand."""

import jax
import jax.numpy as jnp
import optax
import pytest

from fedsparse_jax.core import losses
from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Chunk, Model
from fedsparse_jax.federated import Recipe, build_algorithm, keepers_mean
from fedsparse_jax.federated.flash import flash
from fedsparse_jax.sparsity import CRITERIA, Pruning, constant, global_

HALF = Pruning(CRITERIA["magnitude"], global_, constant(0.5))


def algorithm_of(initial, **options):
    model = Model(lambda key: initial, lambda p, x: x @ p["a"] + x @ p["b"])
    hooks = (flash(HALF, **options),)
    recipe = Recipe(model, losses.squared, optax.sgd(0.25), optax.sgd(1.0), keepers_mean, hooks, num_clients=2)
    return build_algorithm(recipe)


def test_the_warm_ups_decide_how_many_are_kept_in_each_leaf():
    """Of four weights in each of two leaves half is kept. ``a`` of .1 is below ``b`` of .2. A step of the first client on
    x = (1, 0, 0, 0), y = 1.3 moves one weight of each by .5, so that three of b and one of a are left: with a
    client who sees no example (four of b), the mean is one half of a, rounded as the weights say."""
    initial = {"a": jnp.full(4, 0.1), "b": jnp.full(4, 0.2)}
    algorithm = algorithm_of(initial, passes=1)
    inputs = jnp.zeros((2, 1, 1, 4)).at[0, 0, 0, 0].set(1.0)
    data = Chunk(inputs, jnp.full((2, 1, 1), 1.3), jnp.array([[[True]], [[False]]]))
    server = algorithm.init(jax.random.key(0))
    for weights, kept in (((1.0, 0.0), [1, 3]), ((3.0, 1.0), [1, 3]), ((1.0, 3.0), [0, 4])):
        pruned = algorithm.prune_at_init(server, data, jnp.array(weights))
        assert [int(pruned.masks[leaf].sum()) for leaf in ("a", "b")] == kept


def test_clients_train_their_parts_and_the_rest_stays():
    initial = {"a": jnp.array([4.0, 3.0, 2.0, 1.0]), "b": jnp.array([-1.0, -2.0, -3.0, -4.0])}
    algorithm = algorithm_of(initial, budgets=(0.5, 1.0))
    server = algorithm.init(jax.random.key(0))
    clients = algorithm.start_clients(server, jnp.array([0, 1]))
    assert clients.masks["a"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert clients.masks["b"].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    moved = clients._replace(params=jax.tree.map(lambda w: w + 1.0, clients.params))
    together, info = algorithm.update_server(server, moved, jnp.array([1.0, 1.0]))
    assert together.params["a"].tolist() == [5, 4, 3, 2] and info.params_up.tolist() == [4, 8]
    alone, _ = algorithm.update_server(server, moved, jnp.array([1.0, 0.0]))
    assert alone.params["a"].tolist() == [5, 4, 2, 1] and bool(alone.masks["a"].all())


@pytest.mark.parametrize("options", [dict(passes=0), dict(budgets=(0.5, 1.5))])
def test_impossible_options_are_refused(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        flash(HALF, **options)
