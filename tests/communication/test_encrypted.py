"""Sums under encryption: what the key holder reads, what the server can read, and the errors that it adds."""

import builtins

import jax
import numpy as np
import pytest

from fedsparse_jax.communication import (
    MessageError,
    MessageSettings,
    Update,
    add_encrypted,
    decrypt,
    encrypt,
    make_context,
    make_keys,
    pack_votes,
    place_weights,
    take_weights,
    unpack_counts,
)
from fedsparse_jax.communication import encrypted as module
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.runs import initial_server, make_runner, play_round
from fedsparse_jax.runs.round import exchange_models, sample_cohort
from tests.helpers import toy_federation

CLIENTS = 8


def shared_mask_updates():
    """Eight clients' weights within one mask of 3,000 kept weights, which do not fill their last ciphertext."""
    rng = np.random.default_rng(1)
    masks = {"a": rng.permutation(4000) < 2990, "b": np.ones((2, 5), bool)}
    weigh = lambda mask: np.where(mask, rng.normal(0, 0.1, mask.shape), 0).astype(np.float32)
    return [Update({name: weigh(mask) for name, mask in masks.items()}, masks) for _ in range(CLIENTS)]


@pytest.fixture(scope="module")
def keys():
    pytest.importorskip("tenseal")
    return make_keys()


def test_the_key_holder_reads_the_weighted_mean_of_the_clients_and_the_server_adds_without_the_secret(keys):
    updates = shared_mask_updates()
    context, shares = make_context(updates[0].params), np.arange(1, CLIENTS + 1) / 36
    vectors = [share * take_weights(one, context).astype(float) for share, one in zip(shares, updates)]
    added = add_encrypted([encrypt(vector, keys.public) for vector in vectors], keys.public)
    mean = decrypt(added, keys.secret)
    assert len(added) == 2 and mean.shape == (3000,)
    assert np.abs(mean - sum(vectors)).max() < 1e-6
    params = place_weights(mean, updates[0].masks, context)
    for name, mask in updates[0].masks.items():
        plain = sum(share * one.params[name].astype(float) for share, one in zip(shares, updates))
        np.testing.assert_allclose(params[name], plain, atol=1e-6)
        assert not params[name][~mask].any()


def test_the_public_key_decrypts_nothing_and_two_encryptions_of_the_same_differ(keys):
    sent, again = (encrypt(np.full(10, 0.5), keys.public) for _ in range(2))
    assert sent != again
    with pytest.raises(ValueError, match="secret"):
        decrypt(sent, keys.public)
    read = decrypt(sent, make_keys().secret)  # of somebody else
    assert np.abs(read - 0.5).min() > 1


def test_votes_are_counted_exactly(keys):
    votes = np.random.default_rng(2).random((CLIENTS, 20_001)) < 0.7
    votes[:, :2] = [True, False]
    sent = [encrypt(pack_votes(one, CLIENTS), keys.public, module.VOTE_SCALE) for one in votes]
    counts = unpack_counts(decrypt(add_encrypted(sent, keys.public), keys.secret), CLIENTS, votes.shape[1])
    assert (counts == votes.sum(0)).all() and counts[0] == CLIENTS and counts[1] == 0
    assert len(sent[0]) == 2  # nine counts of eight clients in a number, 2048 numbers in a ciphertext


@pytest.mark.parametrize("num_clients", [1, 2, 8, 1000, 2**15 - 1])
def test_counts_of_all_and_of_none_do_not_carry(num_clients):
    votes = np.array([True, False, True, True, False] * 20)
    sums = num_clients * pack_votes(votes, num_clients)
    assert sums.max() < 2**module.VOTE_BITS
    assert (unpack_counts(sums + 0.4, num_clients, 100) == num_clients * votes).all()


def test_bad_input_is_refused_in_a_sentence(keys):
    for value in (np.nan, np.inf, 5000.0):
        with pytest.raises(MessageError, match="is not a number below 4096"):
            encrypt(np.array([0.0, value]), keys.public)
    short, long = encrypt(np.ones(3), keys.public), encrypt(np.ones(3000), keys.public)
    for sent in (
        [short, long],
        [short, encrypt(np.ones(4), keys.public)],
        [short, [b"noise"]],
        [short, [short[0][:99]]],
    ):
        with pytest.raises(MessageError, match="damaged, or differ in length"):
            add_encrypted(sent, keys.public)
    assert decrypt(encrypt(np.zeros(0), keys.public), keys.secret).shape == (0,)
    with pytest.raises(ArgumentError, match="num_clients is 0"):
        pack_votes(np.ones(3, bool), 0)


def test_weights_are_placed_where_they_were_taken_from_and_other_numbers_of_them_are_refused():
    update = shared_mask_updates()[0]
    context = make_context(update.params)
    weights = take_weights(update, context)
    placed = place_weights(weights, update.masks, context)
    assert all((placed[name] == leaf).all() for name, leaf in update.params.items())
    with pytest.raises(MessageError, match="There are 2999 weights, but the mask keeps 3000"):
        place_weights(weights[:-1], update.masks, context)


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tenseal":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"install the extra by: pip install -e '\.\[encryption\]'"):
        make_keys()


def exchange_under_encryption(keys):
    """An exchange in which the server gets, in the place of each client's weights, the decrypted mean of all."""

    def exchange(runner, server, round_, ids, shared_masks):
        plain = exchange_models(runner, server, round_, ids, shared_masks)
        rows = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), plain.received) for i in range(len(ids))]
        sizes = np.asarray(runner.experiment.federation.client_sizes(ids), float)
        context = make_context(rows[0].params, rows[0].masks)
        vectors = [
            share * take_weights(Update(row.params, row.masks), context).astype(float)
            for share, row in zip(sizes / sizes.sum(), rows)
        ]
        added = add_encrypted([encrypt(vector, keys.public) for vector in vectors], keys.public)
        mean = place_weights(decrypt(added, keys.secret), rows[0].masks, context)
        same = jax.tree.map(lambda leaf: np.stack([leaf] * len(ids)), mean)
        return plain._replace(received=plain.received._replace(params=same))

    return exchange


@pytest.mark.slow
def test_rounds_whose_clients_are_added_under_encryption_end_where_plain_rounds_end(keys):
    ends = []
    for exchange in (None, exchange_under_encryption(keys)):
        settings = MessageSettings("transmit")
        experiment = toy_federation.experiment(3, epochs=1, messages=settings, exchange=exchange)
        runner = make_runner(experiment)
        server, known = initial_server(runner), {}
        for t in (1, 2, 3):
            result = play_round(runner, server, t, sample_cohort(experiment, t), known)
            server, known = result.server, result.shared_masks
        ends.append(jax.tree.map(np.asarray, (server.params, server.masks)))
    (params, masks), (decrypted, same) = ends
    assert jax.tree.all(jax.tree.map(np.array_equal, masks, same))
    errors = [float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (params, decrypted)))]
    assert 0 < max(errors) < 1e-4
