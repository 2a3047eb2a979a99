"""From plans of indices to arrays on the device: read from memory or from a file, ahead of the training."""

import mmap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.core.types import Chunk
from fedsparse_jax.data.batching import BatchPlan, num_steps, plan_batches
from fedsparse_jax.data.federation import Federation

Reader = Callable[[np.ndarray], jax.Array]  # the examples of some indices


def resident_reader(inputs) -> Reader:
    """A reader of examples by index, with all of them on the device and gathered there."""
    on_device = jnp.asarray(inputs)
    gather = jax.jit(lambda array, index: array[index])
    return lambda index: gather(on_device, index)


def streamed_reader(inputs) -> Reader:
    """A reader of examples by index, from a memory-mapped array that may be larger than memory.

    Pages that were read are given back, so that the process does not grow to the size of the file; the system keeps
    them as long as it has memory to spare.
    """
    mapped = getattr(inputs, "_mmap", None) if getattr(inputs, "mode", "") != "c" else None

    def read(index):
        examples = jnp.asarray(np.take(inputs, index, axis=0))
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
        return examples

    return read


def reader_of_places(inputs, rows: np.ndarray, resident: bool) -> Reader:
    """A reader of the examples ``rows`` by their places in ``rows``; no other is read.

    Args:
        inputs: ``[N, *shape]``, memory-mapped or not.
        rows: ``i64[n]``.
        resident: whether they are kept on the device, or else read each time.
    """
    if resident:
        return resident_reader(inputs[rows])
    read = streamed_reader(inputs)
    return lambda places: read(rows[places])


def read_chunk(read: Reader, targets, plan: BatchPlan) -> Chunk:
    """The examples that a plan names, on the device."""
    return Chunk(read(plan.rows), jnp.asarray(targets[plan.rows]), jnp.asarray(plan.valid))


def prefetch_chunks(read: Reader, targets, plans: Iterator[BatchPlan]) -> Iterator[Chunk]:
    """Plans to chunks; each is read while the device works on the one before."""
    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for plan in plans:
            following = pool.submit(read_chunk, read, targets, plan)
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()


def predict_batches(apply: Callable, params, read: Reader, index: np.ndarray, batch_size: int) -> np.ndarray:
    """Predictions ``f32[N]`` for the examples ``index [N]``, in equal batches so that memory stays bounded."""
    batches = -(-len(index) // batch_size)
    padded = np.resize(index, batches * batch_size).reshape(batches, batch_size)
    predictions = [apply(params, read(batch)) for batch in padded]
    return np.concatenate([np.asarray(batch) for batch in predictions])[: len(index)]


def read_round(data: Federation, client_ids, *, seed: int, round_: int, batch_size: int, epochs: int = 1) -> Chunk:
    """All local steps of a round as one chunk ``[C, T, B, ...]``, for data and models that are small enough.

    Args:
        data: the federation.
        client_ids: ``[C]``, the cohort.
        seed, round_: decide the order of the examples.
        batch_size, epochs: of the local training.
    """
    steps = max(num_steps(len(data.members[i]), batch_size, epochs) for i in client_ids)
    plan = plan_batches(seed, round_, client_ids, data.members, batch_size=batch_size, epochs=epochs, steps=steps)
    return read_chunk(lambda rows: jnp.asarray(data.inputs[rows]), data.targets, plan)
