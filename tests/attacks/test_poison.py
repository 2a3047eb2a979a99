"""Clients who lie: each poison by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.attacks import POISONS, add_trigger
from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Chunk, ClientMemory, Payload, ServerState

SENT = {"w": jnp.array([4.0, -3.0, 2.0, 1.0])}
TRAINED = Payload({"w": jnp.array([4.5, -3.0, 2.0, 0.0])}, {"w": jnp.array([True, True, True, False])})
SERVER = ServerState(jnp.int32(0), SENT, {"w": jnp.ones(4, bool)}, None, jax.random.key(0), ClientMemory())


def upload(name, **options):
    params, masks, _ = POISONS[name](**options).change_upload(SERVER, TRAINED)
    return params["w"].tolist(), masks["w"].tolist()


def test_scaling_and_sign_flip_by_hand():
    kept = [True, True, True, False]
    assert upload("scaling", factor=10.0) == ([9.0, -3.0, 2.0, 0.0], kept)
    assert upload("sign_flip", factor=2.0) == ([3.0, -3.0, 2.0, 0.0], kept)


def test_the_largest_weights_are_voted_out():
    assert upload("kill_weights", share=0.5) == ([0.0, 0.0, 2.0, 0.0], [False, False, True, False])


def test_chosen_weights_are_sent_large_by_all_liars_alike():
    params, masks = upload("keep_weights", share=1.0, factor=2.0)
    size = 2 * np.sqrt((4.5**2 + 3**2 + 2**2) / 3)  # twice the root mean square of what is kept
    np.testing.assert_allclose(np.abs(params), size, rtol=1e-6)
    assert masks == [True] * 4
    few = upload("keep_weights", share=0.05)
    assert few == upload("keep_weights", share=0.05) and few[1][:3] == [True] * 3


def batches():
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.uniform(0, 0.9, (3, 4, 5, 5, 1)), jnp.float32)
    return Chunk(inputs, jnp.full((3, 4), 7.0), jnp.ones((3, 4), bool))


def test_labels_are_drawn_anew_from_the_range():
    change = POISONS["label_noise"](low=0.0, high=4.0).change_batches
    noisy, other = (change(batches(), jax.random.key(seed)) for seed in (0, 1))
    assert set(np.unique(noisy.targets)) <= {0.0, 1.0, 2.0, 3.0} and (noisy.targets != other.targets).any()
    assert (noisy.inputs == batches().inputs).all()


def test_the_trigger_is_put_on_a_share_of_each_batch_with_its_label():
    marked = POISONS["backdoor"](target=2, share=0.5).change_batches(batches(), jax.random.key(0))
    assert marked.targets.tolist() == [[2.0, 2.0, 7.0, 7.0]] * 3
    assert (marked.inputs[:, :2] == add_trigger(batches().inputs)[:, :2]).all()
    assert (marked.inputs[:, 2:] == batches().inputs[:, 2:]).all()
    assert (add_trigger(batches().inputs)[..., :2, :2, :] == 1).all()
    assert (add_trigger(batches().inputs)[..., 2:, :, :] == batches().inputs[..., 2:, :, :]).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [("kill_weights", {"share": 0.0}), ("keep_weights", {"share": 1.5}), ("backdoor", {"share": float("nan")}),
     ("label_noise", {"high": -1.0})],
)  # fmt: skip
def test_impossible_options_are_refused(name, options):
    with pytest.raises(ArgumentError, match=f"^{next(iter(options))} is "):
        POISONS[name](**options)
