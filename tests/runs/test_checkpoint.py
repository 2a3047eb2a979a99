"""Checkpoints: what is saved comes back, and damage is noticed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from fedsparse_jax.runs import checkpoint
from fedsparse_jax.core.types import Memory, ServerState, UsageError


def state(round_):
    params = {"w": jnp.arange(2000.0) + round_, "b": jnp.ones(3)}
    kept = {"w": jnp.arange(2000) % 2 == 0, "b": jnp.ones(3, bool)}
    return ServerState(jnp.int32(round_), params, kept, optax.adam(0.1).init(params), jax.random.key(7))


@pytest.fixture
def folder(tmp_path):
    with checkpoint.open_manager(tmp_path) as manager:
        for round_ in (1, 2, 3):
            checkpoint.save(manager, state(round_))
    return tmp_path


def restore(folder, round_=None):
    with checkpoint.open_manager(folder) as manager:
        return checkpoint.restore(manager, jax.eval_shape(lambda: state(0)), round_)


def damage(folder, round_):
    """Flips one byte of the largest file of a checkpoint."""
    files = [
        p for p in (folder / checkpoint.FOLDER / str(round_)).rglob("*") if p.is_file() and "state" in p.parts
    ]
    victim = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0xFF
    victim.write_bytes(bytes(content))


def test_what_is_saved_comes_back_bit_for_bit(folder):
    found, expected = restore(folder), state(3)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert checkpoint.digest(found) == checkpoint.digest(expected)
    assert jax.random.key_data(found.key).tolist() == jax.random.key_data(expected.key).tolist()


def test_memory_comes_back(tmp_path):
    params = {"w": jnp.arange(6.0)}
    memory = Memory({"w": jnp.arange(12).reshape(2, 6) % 5 == 0}, optax.adam(0.1).init(params), jnp.arange(2))
    full = state(1)._replace(memory=memory)
    with checkpoint.open_manager(tmp_path) as manager:
        checkpoint.save(manager, full)
    with checkpoint.open_manager(tmp_path) as manager:
        found = checkpoint.restore(manager, jax.eval_shape(lambda: full))
    assert checkpoint.digest(found) == checkpoint.digest(full) != checkpoint.digest(state(1))


def test_states_of_before_there_was_a_memory_can_be_read(tmp_path):
    class Old(NamedTuple):
        round: Any
        params: Any
        masks: Any
        opt_state: Any
        key: Any

    old = Old(*state(1)[:5])
    with checkpoint.open_manager(tmp_path) as manager:
        meta = {"round": 1, "digest": checkpoint.digest(old)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(old), meta=ocp.args.JsonSave(meta))
        manager.save(1, args=items)
    assert checkpoint.digest(restore(tmp_path)) == checkpoint.digest(state(1))


def test_any_round_can_be_asked_for(folder):
    assert int(restore(folder, 2).round) == 2
    with pytest.raises(UsageError, match=r"no checkpoint of round 9; it holds: 1, 2, 3"):
        restore(folder, 9)


def test_a_damaged_checkpoint_is_passed_over(folder, capsys):
    damage(folder, 3)
    assert int(restore(folder).round) == 2
    assert "round 3" in capsys.readouterr().out


def test_only_damaged_checkpoints_are_refused(folder):
    for round_ in (1, 2, 3):
        damage(folder, round_)
    with pytest.raises(UsageError, match="no sound checkpoint"):
        restore(folder)


def test_an_empty_folder_holds_nothing(tmp_path):
    assert restore(tmp_path) is None


@pytest.mark.parametrize("change", ["bit", "dtype", "mask"])
def test_the_digest_sees_everything(change):
    one = state(1)
    other = {
        "bit": one._replace(
            params={**one.params, "b": jnp.array([1.0, 1.0, np.nextafter(np.float32(1), 2)])}
        ),
        "dtype": one._replace(round=one.round.astype(jnp.uint32)),
        "mask": one._replace(masks={**one.masks, "b": jnp.array([True, True, False])}),
    }[change]
    assert checkpoint.digest(one) != checkpoint.digest(other)
