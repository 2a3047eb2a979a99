"""Checkpoints: what is saved comes back, and damage is noticed."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import ClientMemory, ServerState
from fedsparse_jax.runs import checkpoint
from fedsparse_jax.runs.checkpoint import open_manager, restore_checkpoint, save_checkpoint, state_digest


def state(round_):
    params = {"w": jnp.arange(2000.0) + round_, "b": jnp.ones(3)}
    masks = {"w": jnp.arange(2000) % 2 == 0, "b": jnp.ones(3, bool)}
    return ServerState(jnp.int32(round_), params, masks, optax.adam(0.1).init(params), jax.random.key(7))


def memory():
    """What two clients remember of a model with six weights."""
    own_masks = {"w": jnp.arange(12).reshape(2, 6) % 5 == 0}
    return ClientMemory(own_masks, optax.adam(0.1).init({"w": jnp.arange(6.0)}), jnp.arange(2))


@pytest.fixture
def folder(tmp_path):
    with open_manager(tmp_path) as manager:
        for round_ in (1, 2, 3):
            save_checkpoint(manager, state(round_))
    return tmp_path


def restore(folder, round_=None, like=None, print_fn=print):
    with open_manager(folder) as manager:
        return restore_checkpoint(manager, jax.eval_shape(lambda: like or state(0)), round_, print_fn)


def save_as_before(folder, old, stored):
    """A checkpoint of round 1 as an earlier version wrote it: its state ``old``, of which ``stored`` goes to disk."""
    with open_manager(folder) as manager:
        meta = {"round": 1, "digest": state_digest(old)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(stored), meta=ocp.args.JsonSave(meta))
        manager.save(1, args=items)


def damage(folder, round_):
    """Flips one byte of the largest file of a checkpoint."""
    root = folder / checkpoint.FOLDER / str(round_)
    files = [path for path in root.rglob("*") if path.is_file() and "state" in path.parts]
    victim = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0xFF
    victim.write_bytes(bytes(content))


def test_what_is_saved_comes_back_bit_for_bit(folder):
    restored, expected = restore(folder), state(3)
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    assert state_digest(restored) == state_digest(expected)
    assert jax.random.key_data(restored.key).tolist() == jax.random.key_data(expected.key).tolist()


@pytest.mark.parametrize("forgotten", [(), ("masks",), ("opt_state", "state")])
def test_memory_comes_back(tmp_path, forgotten):
    full = state(1)._replace(memory=memory()._replace(**dict.fromkeys(forgotten)))
    with open_manager(tmp_path) as manager:
        save_checkpoint(manager, full)
    restored = restore(tmp_path, like=full)
    assert jax.tree.structure(restored) == jax.tree.structure(full)
    assert state_digest(restored) == state_digest(full) != state_digest(state(1))


def test_states_of_before_there_was_a_memory_can_be_read(tmp_path):
    class Old(NamedTuple):
        round: Any
        params: Any
        masks: Any
        opt_state: Any
        key: Any

    old = Old(*state(1)[:5])
    save_as_before(tmp_path, old, old)
    assert state_digest(restore(tmp_path)) == state_digest(state(1))


def test_a_memory_with_the_names_of_the_first_version_can_be_read(tmp_path):
    class OldMemory(NamedTuple):
        masks: Any
        opt_state: Any
        prunings: Any

    full = state(1)._replace(memory=memory())
    old = ServerState(*full[:5], memory=OldMemory(*memory()[:3]))
    new = ("hook_state", "pace")
    save_as_before(tmp_path, old, {name: field for name, field in old._asdict().items() if name not in new})
    restored = restore(tmp_path, like=full)
    assert jax.tree.structure(restored) == jax.tree.structure(full)
    jax.tree.map(np.testing.assert_array_equal, restored.memory, memory())


def test_any_round_can_be_asked_for(folder):
    assert int(restore(folder, 2).round) == 2
    with pytest.raises(UsageError, match=r"no checkpoint of round 9; it holds: 1, 2, 3"):
        restore(folder, 9)


def test_a_damaged_checkpoint_is_passed_over(folder, capsys):
    damage(folder, 3)
    assert int(restore(folder).round) == 2
    assert "round 3" in capsys.readouterr().out


HARM = {
    "no meta": lambda step: shutil.rmtree(step / "meta"),
    "no arrays": lambda step: shutil.rmtree(step / "state/d"),
    "no state": lambda step: shutil.rmtree(step / "state"),
    "nothing": lambda step: [shutil.rmtree(step), step.mkdir()],
    "not finished": lambda step: step.rename(step.with_name("3.orbax-checkpoint-tmp-1")),
}


@pytest.mark.parametrize("harm", HARM)
def test_who_reads_a_half_written_checkpoint_gets_the_one_before_and_changes_nothing(folder, harm):
    """What a node that was taken away leaves; a run that goes on saves that round again."""
    HARM[harm](folder / checkpoint.FOLDER / "3")
    before = sorted(folder.rglob("*"))
    assert state_digest(restore(folder)) == state_digest(state(2))
    assert sorted(folder.rglob("*")) == before
    with open_manager(folder) as manager:
        restore_checkpoint(manager, jax.eval_shape(lambda: state(0)), forget_damaged=True)
        save_checkpoint(manager, state(3))
    assert state_digest(restore(folder)) == state_digest(state(3))


def test_a_checkpoint_that_was_copied_to_a_later_number_is_passed_over(folder, capsys):
    shutil.copytree(folder / checkpoint.FOLDER / "3", folder / checkpoint.FOLDER / "7")
    assert int(restore(folder).round) == 3
    assert "Checkpoint of round 7 was copied from that of round 3; trying" in capsys.readouterr().out
    with open_manager(folder) as manager:  # round 4 can be saved again
        restore_checkpoint(manager, jax.eval_shape(lambda: state(0)), forget_damaged=True)
        save_checkpoint(manager, state(4))
    assert checkpoint.rounds_on_disk(folder) == {1, 2, 3, 4}


def test_what_the_disk_refuses_in_a_save_is_an_os_error_and_the_rounds_before_stay_whole(folder):
    """A limit on the size of files stands for a full disk: Orbax tells of both in the same way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match="File too large") as refused, open_manager(folder) as manager:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
            save_checkpoint(manager, state(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.errno == errno.EFBIG and refused.value.filename == str(folder / checkpoint.FOLDER)
    assert state_digest(restore(folder)) == state_digest(state(3))
    with open_manager(folder) as manager:
        save_checkpoint(manager, state(4))
    assert state_digest(restore(folder)) == state_digest(state(4))


def test_only_a_run_that_goes_on_deletes_what_is_damaged(folder):
    damage(folder, 3)
    restore(folder)
    assert checkpoint.rounds_on_disk(folder) == {1, 2, 3}
    with open_manager(folder) as manager:
        restore_checkpoint(manager, jax.eval_shape(lambda: state(0)), forget_damaged=True)
    assert checkpoint.rounds_on_disk(folder) == {1, 2}


def test_what_is_said_of_damage_can_be_heard_elsewhere(folder, capsys):
    damage(folder, 3)
    lines = []
    restore(folder, print_fn=lines.append)
    assert len(lines) == 1 and "round 3" in lines[0] and lines[0].endswith("trying an older one.")
    assert "trying an older one" not in capsys.readouterr().out


def test_only_damaged_checkpoints_are_refused(folder):
    for round_ in (1, 2, 3):
        damage(folder, round_)
    with pytest.raises(UsageError, match="3 checkpoints, of which none can be used here .* are left as they are"):
        restore(folder)


def test_an_empty_folder_holds_nothing(tmp_path):
    assert restore(tmp_path) is None


@pytest.mark.parametrize("change", ["bit", "dtype", "mask"])
def test_the_digest_sees_everything(change):
    before = state(1)
    after = {
        "bit": before._replace(params={**before.params, "b": jnp.array([1.0, 1.0, np.nextafter(np.float32(1), 2)])}),
        "dtype": before._replace(round=before.round.astype(jnp.uint32)),
        "mask": before._replace(masks={**before.masks, "b": jnp.array([True, True, False])}),
    }[change]
    assert state_digest(before) != state_digest(after)


ON_DEVICE_7 = """
import sys
from pathlib import Path

import jax

from fedsparse_jax.runs.checkpoint import open_manager, save_checkpoint
from tests.runs.test_checkpoint import state

there = jax.tree.map(lambda leaf: jax.device_put(leaf, jax.devices()[7]), state(1))
with open_manager(Path(sys.argv[1])) as manager:
    save_checkpoint(manager, there)
"""


def test_a_checkpoint_of_a_machine_with_more_devices_is_read(tmp_path, repository):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "PYTHONPATH": str(repository)}
    subprocess.run([sys.executable, "-c", ON_DEVICE_7, tmp_path], env=environment, check=True, cwd=repository)
    restored = restore(tmp_path)
    assert state_digest(restored) == state_digest(state(1))
