"""Orbax checkpoints of the server's state: one a round, written while the next round runs.

Orbax neither notices a flipped byte nor refuses another dtype, so that each checkpoint carries a digest of its
arrays; `restore_checkpoint` goes back to the newest one that is sound.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import refuse_file
from fedsparse_jax.core.tree import is_key, keys_to_numbers, numbers_to_keys
from fedsparse_jax.core.types import ClientMemory, ServerState

FOLDER = "checkpoints"


class NewestAndBest:
    """Which checkpoints stay, as Orbax asks it: the ``newest`` so many, and that of the ``best`` round, if any is."""

    def __init__(self, newest: int, best: Callable[[], int | None]):
        self.newest, self.best = newest, best

    def should_preserve(self, checkpoints: Sequence, *, context) -> Sequence[bool]:
        """For each checkpoint, oldest first, whether it stays."""
        best, first = self.best(), len(checkpoints) - self.newest
        return [place >= first or one.step == best for place, one in enumerate(checkpoints)]


@contextlib.contextmanager
def open_manager(
    workdir: Path, keep: int | None = None, best: Callable[[], int | None] = lambda: None
) -> Iterator[ocp.CheckpointManager]:
    """Orbax's manager of a run's checkpoints; leaving the block waits for the last one.

    Args:
        workdir: the run's folder.
        keep: newest rounds that stay on disk; None keeps all.
        best: asked at every save for a round that stays as well, whatever its age.

    Raises:
        UsageError: a file stands where the folder should.
        OSError: what the disk refused, also where Orbax calls it a ValueError.
    """
    folder = workdir / FOLDER
    refuse_file(folder)
    try:
        policy = None if keep is None else NewestAndBest(keep, best)
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, **_alone())
        folder.mkdir(parents=True, exist_ok=True)
        with ocp.CheckpointManager(folder.resolve(), options=options) as manager:
            yield manager
    except ValueError as error:
        code = re.search(r"\[os_error_code='(\d+)'\]", str(error))  # so do Orbax's writers tell what happened
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(folder)) from error


def save_checkpoint(manager: ocp.CheckpointManager, server: ServerState, log: list[dict] | None = None) -> None:
    """Starts to write the state after ``server.round`` rounds; returns before it is on disk.

    Args:
        manager: from `open_manager`.
        server: the state.
        log: the lines of the log up to this round. What later rounds count on (bytes, epsilon) stands in them, so that
            a log that is lost or damaged can be written anew.
    """
    round_ = int(server.round)
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(_storable(_to_stored(server))),
        meta=ocp.args.JsonSave({"round": round_, "digest": state_digest(server), "log": log, **_form()}),
    )
    if round_ not in manager.all_steps() and not manager.save(round_, args=args):
        raise RuntimeError(f"Orbax refused to save round {round_}.")


def restore_checkpoint(
    manager: ocp.CheckpointManager,
    like: ServerState,
    round_: int | None = None,
    print_fn: Callable[[str], None] = print,
    *,
    forget_damaged: bool = False,
    usable: Callable[[int], bool] = lambda round_: True,
) -> ServerState | None:
    """The newest sound checkpoint, or None if there is no checkpoint at all.

    Args:
        like: a state of the same structure, shapes and dtypes (arrays or ``jax.eval_shape`` of them).
        round_: exactly this round instead of the newest.
        print_fn: told which checkpoints cannot be used.
        forget_damaged: delete the newer ones that cannot be used, so that their rounds can be saved again.
        usable: whether what lies beside a round's checkpoint is sound; else an older one is tried.

    Raises:
        UsageError: the round is not there, or there are checkpoints but none of them is sound.
    """
    rounds = sorted(manager.all_steps(), reverse=True)
    if round_ is not None and round_ not in rounds:
        there = ", ".join(map(str, sorted(rounds))) or "none"
        raise UsageError(f"{manager.directory} holds no checkpoint of round {round_}; it holds: {there}.")
    for step in rounds if round_ is None else [round_]:
        server = _read(manager, like, step, print_fn) if usable(step) else None
        if server is not None:
            for newer in rounds if forget_damaged else []:
                if newer > step:
                    manager.delete(newer)
            return server
    if rounds:
        raise UsageError(
            f"{manager.directory} holds {len(rounds)} checkpoints, of which none can be used here (see above). They "
            "are left as they are: mend the cause, or begin anew with another --workdir."
        )
    return None


def read_log(manager: ocp.CheckpointManager, round_: int) -> list[dict] | None:
    """The lines of the log that a checkpoint holds; None for one of version 0.1."""
    meta = manager.restore(round_, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
    return meta.get("log")


def rounds_on_disk(workdir: Path) -> set[int]:
    """The rounds whose checkpoints are complete, those included that Orbax is about to delete."""
    folder = workdir / FOLDER
    return {int(path.name) for path in folder.iterdir() if path.name.isdigit()} if folder.is_dir() else set()


def state_digest(server: ServerState) -> str:
    """SHA-256 over dtypes, shapes and bytes of all leaves."""
    return digest_of_arrays(jax.tree.leaves(server))


def digest_of_arrays(arrays: Sequence) -> str:
    """SHA-256 over dtypes, shapes and bytes of arrays, in their order."""
    total = hashlib.sha256()
    for leaf in arrays:
        array = np.ascontiguousarray(keys_to_numbers(leaf))
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _alone() -> dict:
    """Options of a manager that one of several processes has for itself."""
    if jax.process_count() == 1:
        return {}
    alone = ocp.options.MultiprocessingOptions(active_processes={jax.process_index()}, primary_host=jax.process_index())
    return {"create": False, "multiprocessing_options": alone}


def _storable(stored: dict) -> dict:
    """The state as Orbax takes it from one of several processes: NumPy, and random keys as their numbers."""
    return stored if jax.process_count() == 1 else jax.tree.map(np.asarray, keys_to_numbers(stored))


def _form() -> dict:
    """What the meta data say of that."""
    return {} if jax.process_count() == 1 else {"keys": "numbers"}


def _read(manager, like, step: int, print_fn) -> ServerState | None:
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])  # whatever devices the state was on
    on_one = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
    whole = _to_stored(like)
    try:
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        in_numbers = "keys" in meta
        stored_as = jax.eval_shape(keys_to_numbers, whole) if in_numbers else whole
        abstract = jax.tree.map(on_one, stored_as)
        state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]
        server = _from_stored(like, numbers_to_keys(state, whole) if in_numbers else state)
        sound = meta["digest"] == state_digest(server)
    except Exception as error:  # whatever Orbax raises for a damaged folder
        print_fn(f"Checkpoint of round {step} cannot be read ({type(error).__name__}); trying an older one.")
        return None
    if not sound:
        print_fn(f"Checkpoint of round {step} is damaged (its digest differs); trying an older one.")
    elif meta["round"] != step:
        print_fn(f"Checkpoint of round {step} was copied from that of round {meta['round']}; trying an older one.")
        return None
    return jax.tree.map(_uncommitted, server) if sound else None


def _to_stored(server: ServerState) -> dict:
    """The state as it lies on disk: without a memory that holds nothing, and with the names of the first version."""
    fields = server._asdict()
    for name in ("hook_state", "pace"):  # which the first version did not know
        if fields[name] is None:
            del fields[name]
    if not jax.tree.leaves(fields.pop("memory")):
        return fields
    masks, opt_state, state, params = server.memory
    own = {} if params is None else {"params": jax.tree.leaves(params)}
    return {**fields, "memory": {"masks": masks, "opt_state": opt_state, "prunings": state, **own}}


def _from_stored(like: ServerState, stored: dict) -> ServerState:
    memory = stored.pop("memory", None)
    if memory is None:
        return like._replace(**stored)
    structure = jax.tree.structure(like.memory.params)
    own = jax.tree.unflatten(structure, memory["params"]) if "params" in memory else None
    return like._replace(**stored, memory=ClientMemory(memory["masks"], memory["opt_state"], memory["prunings"], own))


def _uncommitted(leaf):
    """The array without a tie to the device that it was restored to, so that a run may go on on others."""
    if is_key(leaf):
        return jax.random.wrap_key_data(_uncommitted(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    return jnp.asarray(np.asarray(leaf))
