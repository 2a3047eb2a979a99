"""Steps on roots, as in SparsyFed, by hand."""

import jax.numpy as jnp
import optax
import pytest

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.optimizers import optimizer_step
from fedsparse_jax.federated.powerpropagation import powerpropagation
from fedsparse_jax.sparsity import CRITERIA, Pruning, constant, global_, kernels

RULE = Pruning(CRITERIA["magnitude"], global_, constant(0.5), kernels)
PARAMS = {"bias": jnp.array([0.0]), "kernel": jnp.array([[4.0, -9.0, 0.0]])}
GRADIENT = {"bias": jnp.array([1.0]), "kernel": jnp.array([[1.0, 1.0, 1.0]])}


def step(exponent):
    tx = powerpropagation(RULE, exponent=exponent).wrap_optimizer(optax.sgd(0.1))
    return optimizer_step(tx, GRADIENT, tx.init(PARAMS), PARAMS)[0]


def test_a_step_on_square_roots():
    # v = 2 and -3 have slopes 2 |v| = 4 and 6: v = 1.6 and -3.6. Zero stays zero; a bias is no power.
    moved = step(2.0)
    assert moved["kernel"].tolist() == [[pytest.approx(1.6**2), pytest.approx(-(3.6**2)), 0]]
    assert moved["bias"].tolist() == [pytest.approx(-0.1)]


def test_the_first_power_is_a_plain_step_and_less_is_refused():
    assert step(1.0)["kernel"].tolist() == [[pytest.approx(3.9), pytest.approx(-9.1), pytest.approx(-0.1)]]
    with pytest.raises(ArgumentError, match="exponent"):
        powerpropagation(RULE, exponent=0.5)
