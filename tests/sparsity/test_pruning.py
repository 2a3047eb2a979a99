"""What a method prunes by: the choice of parts, and scores as means over the batches of one client."""

import jax
import jax.numpy as jnp
import pytest

from fedsparse_jax.core import losses, masks
from fedsparse_jax.core.types import Chunk
from fedsparse_jax.federated.client_step import make_objective
from fedsparse_jax.sparsity import CRITERIA, Criterion, Pruning, constant, global_, kernels, make_scorer

LINE = lambda params, inputs: inputs @ params["w"]
OBJECTIVE = make_objective(LINE, losses.squared)
WEIGHT = {"w": jnp.array([3.0])}


def batches(*valid):
    """Two batches of one example each, x = 2 and x = 1 with target 4: errors 2 and -1, gradients 8 and -2."""
    inputs = jnp.array([[[2.0]], [[1.0]]])
    return Chunk(inputs, jnp.array([[4.0], [4.0]]), jnp.array([[flag] for flag in valid]))


@pytest.mark.parametrize(
    ("valid", "score"),
    [((True, True), (24 + 6) / 2), ((True, False), 24.0), ((False, True), 6.0), ((False, False), 0.0)],
)
def test_scores_are_the_mean_over_batches_with_an_example(valid, score):
    # |w g| is 3 * 8 = 24 on the first batch and 3 * 2 = 6 on the second.
    scorer = make_scorer(CRITERIA["salient_grads"], OBJECTIVE, LINE)
    assert scorer(WEIGHT, jax.random.key(0), batches(*valid))["w"].tolist() == [score]


@pytest.mark.parametrize(
    ("name", "valid", "score"),
    [
        # The mean loss of both examples has the gradient (8 - 2) / 2 = 3 and the Hessian (8 + 2) / 2 = 5.
        ("snip", (True, True), 3 * 3.0),
        ("grasp", (True, True), 3 * 5 * 3.0),
        ("snip", (False, True), 3 * 2.0),
        ("grasp", (True, False), 3 * 8 * 8.0),
        ("grasp", (False, False), 0.0),
    ],
)
def test_scores_of_the_mean_loss_see_all_batches_as_one(name, valid, score):
    scorer = make_scorer(CRITERIA[name], OBJECTIVE, LINE)
    assert scorer(WEIGHT, jax.random.key(0), batches(*valid))["w"].tolist() == [score]


def test_a_criterion_without_data_is_scored_once():
    scorer = make_scorer(CRITERIA["magnitude"], OBJECTIVE, LINE)
    assert scorer(WEIGHT, jax.random.key(0), None)["w"].tolist() == [3.0]


def test_only_criteria_on_data_are_given_data():
    given = {}

    def note(params, **context):
        given.update(context)
        return params

    make_scorer(Criterion(note), OBJECTIVE, LINE)(WEIGHT, jax.random.key(0), batches(True, True))
    assert set(given) == {"key"}
    make_scorer(Criterion(note, needs_batch=True), OBJECTIVE, LINE)(WEIGHT, jax.random.key(0), batches(True, True))
    assert set(given) == {"key", "objective", "apply", "batch"}


def test_select_prunes_what_may_be_pruned():
    # Half of the four weights of the kernel, the smallest; the bias of 0.1 is smaller and stays.
    params = {"bias": jnp.array([0.1]), "kernel": jnp.array([[4.0, 1.0], [3.0, 2.0]])}
    pruning = Pruning(CRITERIA["magnitude"], global_, constant(0.5), kernels)
    mask = pruning.select(pruning.criterion.score(params), masks.ones(params), pruning.schedule(1))
    assert mask["bias"].tolist() == [True]
    assert mask["kernel"].tolist() == [[True, False], [True, False]]


def test_unless_said_otherwise_everything_may_be_pruned():
    params = {"bias": jnp.array([0.1]), "kernel": jnp.array([[4.0, 1.0], [3.0, 2.0]])}
    mask = Pruning(CRITERIA["magnitude"], global_, constant(0.4)).select(params, masks.ones(params), 0.4)
    assert mask["bias"].tolist() == [False] and mask["kernel"].tolist() == [[True, False], [True, True]]
