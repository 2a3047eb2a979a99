"""Who goes into which shadow model."""

import numpy as np

from fedsparse_jax.core.types import UsageError


def halves(people: int, shadows: int, seed: int) -> np.ndarray:
    """Random halves, balanced both ways, ``bool[S, P]``.

    Shadows come in pairs, a random half and the rest, so that everybody is in exactly half of them and every model
    trains on half of the people (an odd person more or less). The pairs are drawn one by one: more shadows begin with
    the same ones.

    >>> halves(5, 4, seed=0).sum(0).tolist()
    [2, 2, 2, 2, 2]
    """
    if shadows < 2 or shadows % 2:
        raise UsageError(f"attack.shadows is {shadows}: it must be an even number, at least 2.")
    if people < 2:
        raise UsageError(f"attack: {people} people cannot be divided into halves.")
    rows = []
    for pair in range(shadows // 2):
        order = np.random.default_rng([seed, 11, pair]).permutation(people)
        inside = np.zeros(people, bool)
        inside[order[: people // 2]] = True
        rows += [inside, ~inside]
    return np.stack(rows)
