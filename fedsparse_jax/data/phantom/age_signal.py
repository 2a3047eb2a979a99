"""Where in the phantom age shows: the map that a model's saliency may be compared with."""

import functools

import numpy as np

from fedsparse_jax.data.normalisation import zscore_volume
from fedsparse_jax.data.phantom.anatomy import draw_person, render_scan


@functools.lru_cache(maxsize=4)
def age_signal(
    shape: tuple[int, int, int], *, people: int = 32, age: float = 65.0, years: float = 10.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """How much each voxel changes as people age, and where their brains are.

    Everybody is drawn once and rendered at two ages, with the same folding, warp, noise and scanner, so that nothing
    but ageing differs between the two scans.

    Args:
        shape: voxels of the grid.
        people: who are drawn, F and M in turn.
        age: years, the middle of the two ages.
        years: between the two ages.
        seed: of the people.

    Returns:
        ``f64[*shape]``, the mean over people of the absolute change of the normalised intensity a year, and
        ``bool[*shape]``, the voxels that lie in the brain of half of the people or more.
    """
    changes, inside = np.zeros(shape), np.zeros(shape)
    for number in range(people):
        scans = []
        for at in (age - years / 2, age + years / 2):
            who = draw_person(at, np.random.default_rng([seed, number]), "FM"[number % 2])
            scans.append(render_scan(who, shape))
        earlier, later = map(zscore_volume, scans)
        changes += np.abs(later - earlier) / years / people
        inside += (scans[0] > 0) / people
    return changes, inside >= 0.5
