"""Shadow models: the same config trained on random halves of all people, each an ordinary run in its own folder.

A finished shadow is not trained again, and one that was stopped goes on. Beside its run each leaves what it predicts
for everybody, after every round whose checkpoint is kept, which is all that an attack needs of it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedsparse_jax.attacks.evidence import Shadows
from fedsparse_jax.attacks.shadows import halves
from fedsparse_jax.config import build
from fedsparse_jax.core.types import UsageError
from fedsparse_jax.data import batching
from fedsparse_jax.runs import checkpoint, loop, metrics_log

EVERYBODY = "everybody.npz"
FAMILY = "shadows.json"


def train(
    config, workdir: Path, count: int, *, say: Callable[[str], None] = print, track=build.plain
) -> None:
    """Trains ``count`` shadows through `experiment.run`, centralized or federated as the config says.

    Everybody, of whatever client or of the test set, is in exactly half of them; a shadow's test set is its other half.
    The clients share the half as the config's partition does. Each shadow has a seed of its own.

    Args:
        config: of the target, complete.
        workdir: folder of the shadows, ``shadow-0`` and on.
        count: how many, even; more of them begin with the same ones.
        say: told what goes on.
        track: progress of reading scans.

    Raises:
        UsageError: the folder holds shadows of another config, or the numbers cannot be.
    """
    if config.task != "regression":
        raise UsageError(f"task is {config.task!r}; shadows are trained for attacks on regressors.")
    data, _ = build.federation(config, track)
    inside = halves(len({row["participant_id"] for row in data.people}), count, config.seed)
    for index, half in enumerate(inside):
        say(f"shadow {index + 1} of {count}")
        _one(config, workdir / f"shadow-{index}", np.flatnonzero(~half), index, say, track)
    metrics_log.write_json(workdir / FAMILY, {"count": count})


def _one(config, folder: Path, outside, index: int, say, track) -> None:
    if (folder / EVERYBODY).exists():
        return
    own = build.completed(config.to_dict())
    own.seed = config.seed + index
    shadow = build.experiment(own, track, test=outside)
    shadow = shadow._replace(config={**shadow.config, "shadow": index})
    loop.run(shadow, folder, say)
    write_everybody(shadow, folder)


def write_everybody(shadow: loop.Experiment, folder: Path) -> None:
    """``everybody.npz``: predictions ``f32[R, P]`` after each kept round, those rounds, ages, and who was inside."""
    apply, data = loop.compile_(shadow).apply, shadow.data
    read = loop.reader(shadow)
    everybody, rounds = np.arange(len(data.targets)), kept(folder)
    predict = lambda params: batching.predict(apply, params, read, everybody, shadow.eval_batch)
    predictions = np.stack([predict(build.trained(folder, round_)[2].params) for round_ in rounds])
    inside = np.isin(everybody, np.concatenate(data.members))
    partial = folder / f"partial-{EVERYBODY}"
    np.savez(partial, predictions=predictions, rounds=rounds, targets=data.targets, inside=inside)
    partial.replace(folder / EVERYBODY)


def kept(workdir: Path) -> list[int]:
    """The rounds whose checkpoints a run folder holds, rising."""
    with checkpoint.open_manager(workdir) as manager:
        return sorted(manager.all_steps())


def read(workdir: Path, targets=None) -> list[dict[str, np.ndarray]]:
    """What the shadows of a folder predict for everybody; see `write_everybody`.

    Args:
        workdir: the folder that `train` filled.
        targets: of the people who are attacked, to compare; None for no check.

    Raises:
        UsageError: no shadows, unfinished ones, or shadows of other people.
    """
    if not (workdir / FAMILY).exists():
        raise UsageError(f"{workdir} holds no finished shadows; train them with scripts/shadows.py.")
    count = metrics_log.read_json(workdir / FAMILY)["count"]
    found = [dict(np.load(workdir / f"shadow-{index}" / EVERYBODY)) for index in range(count)]
    if targets is not None and not all(np.array_equal(one["targets"], targets) for one in found):
        raise UsageError(f"{workdir} holds shadows of other people; train them with the config of the run.")
    return found


def last(workdir: Path, targets=None) -> Shadows:
    """The shadows after their last round, as an attacker holds them."""
    found = read(workdir, targets)
    return Shadows(
        np.stack([one["predictions"][-1] for one in found]), np.stack([one["inside"] for one in found])
    )
