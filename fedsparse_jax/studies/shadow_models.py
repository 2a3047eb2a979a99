"""Shadow models: the same config trained on random halves of all people, each an ordinary run in its own folder.

A finished shadow is not trained again, and one that was stopped goes on. Beside its run each leaves what it predicts
for everybody, after every round whose checkpoint is kept, which is all that an attack needs of it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedsparse_jax.attacks.evidence import Shadows, shadow_halves
from fedsparse_jax.config.build import experiment_from_config, federation_from_config
from fedsparse_jax.config.checks import check_auditable
from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.config.saved_runs import load_run, saved_rounds, upgrade_config
from fedsparse_jax.config.scans import no_progress
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import npz_bytes, read_json, read_npz, write_json, write_whole
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.loading import predict_batches
from fedsparse_jax.data.roster import refuse_others
from fedsparse_jax.runs.experiment import Experiment
from fedsparse_jax.runs.loop import run_experiment
from fedsparse_jax.runs.round import make_runner
from fedsparse_jax.runs.run_dir import recorded_people, refuse_other_config, stored_config

EVERYBODY = "everybody.npz"
SHADOWS = "shadows.json"
BY_HALF = (  # of the config: statistics of the people inside, and what shadows do without
    *("model.output_mean", "model.output_scale"),
    *("data.validation_share", "early_stopping.patience"),
)


def train_shadows(
    config,
    workdir: Path,
    count: int,
    *,
    run: Path | None = None,
    print_fn: Callable[[str], None] = print,
    progress=no_progress,
) -> None:
    """Trains ``count`` shadows, centralized or federated as the config says.

    Everybody, of whatever client or of the test set, is in exactly half of them; a shadow's test set is its other half.
    The clients share the half as the config's partition does. Each shadow has a seed of its own. No shadow has a
    validation, because everybody is inside or outside of it: all of its half train, for all rounds.

    Args:
        config: of the target, complete.
        workdir: folder of the shadows, ``shadow-0`` and on.
        count: how many, even; more of them begin with the same ones.
        run: folder of the target, if there is one; data of other people than it recorded are refused.
        print_fn: told what goes on.
        progress: shown while scans are read.

    Raises:
        UsageError: the folder holds shadows of another config, or the numbers cannot be.
    """
    check_auditable(config)
    data, _ = federation_from_config(config, progress, workdir=run)
    inside = shadow_halves(len({row["participant_id"] for row in data.people}), count, config.seed)
    for index, half in enumerate(inside):
        print_fn(f"shadow {index + 1} of {count}")
        _train_shadow(config, data, workdir / f"shadow-{index}", np.flatnonzero(~half), index, print_fn, progress)
    write_json(workdir / SHADOWS, {"count": count})


def _train_shadow(config, data: Federation, folder: Path, outside, index: int, print_fn, progress) -> None:
    own = upgrade_config(config.to_dict())
    own.seed = config.seed + 1 + index  # the target has the seed itself
    own.data.validation_share, own.early_stopping.patience = 0.0, 0
    if (folder / EVERYBODY).exists():
        refuse_other_config(
            {**own.to_dict(), "shadow": index}, folder, "choose another --workdir", BY_HALF, defaults().to_dict()
        )
        refuse_others(data.people, data.targets, recorded_people(folder), folder)
        return
    shadow = experiment_from_config(own, progress, test=outside, workdir=folder)
    shadow = shadow._replace(config={**shadow.config, "shadow": index})
    run_experiment(shadow, folder, print_fn)
    write_everybody(shadow, folder)


def write_everybody(shadow: Experiment, folder: Path) -> None:
    """``everybody.npz``: predictions ``f32[R, P]`` or logits ``f32[R, P, K]`` after each kept round, those rounds,
    targets, and who was inside.
    """
    runner, data = make_runner(shadow), shadow.federation
    everybody, rounds = np.arange(len(data.targets)), saved_rounds(folder)
    batch_size = shadow.execution.eval_batch
    predict = lambda params: predict_batches(runner.apply, params, runner.read, everybody, batch_size)
    predictions = np.stack([predict(load_run(folder, round_)[2].params) for round_ in rounds])
    inside = np.isin(everybody, np.concatenate(data.members))
    arrays = dict(predictions=predictions, rounds=rounds, targets=data.targets, inside=inside)
    write_whole(folder / EVERYBODY, npz_bytes(arrays))


def read_shadows(workdir: Path) -> list[dict[str, np.ndarray]]:
    """What the shadows of a folder predict for everybody; see `write_everybody`.

    Args:
        workdir: the folder that `train_shadows` filled.

    Raises:
        UsageError: no shadows, or unfinished ones.
    """
    if not (workdir / SHADOWS).exists():
        raise UsageError(f"{workdir} holds no finished shadows; train them with scripts/train_shadows.py.")
    count = read_json(workdir / SHADOWS)["count"]
    return [read_npz(folder / EVERYBODY) for folder in shadow_folders(workdir, count)]


def shadow_folders(workdir: Path, count: int) -> list[Path]:
    """The run folders of so many shadows."""
    return [workdir / f"shadow-{index}" for index in range(count)]


def last_shadows(workdir: Path, config, data: Federation) -> Shadows:
    """The shadows after their last round, as an attacker of a run holds them.

    Args:
        workdir: the folder that `train_shadows` filled.
        config: of the run that is attacked.
        data: its people.

    Raises:
        UsageError: no shadows, or shadows of another config, of other people, or with the seed of the run.
    """
    shadows, remedy = read_shadows(workdir), "train shadows of this run with scripts/train_shadows.py"
    scans = [(row["participant_id"], row["session"]) for row in data.people]
    for folder in shadow_folders(workdir, len(shadows)):
        refuse_other_config(config.to_dict(), folder, remedy, ("seed", "shadow", *BY_HALF), defaults().to_dict())
        if stored_config(folder)["seed"] == config.seed:
            raise UsageError(f"{folder} has the seed of the run, {config.seed}, as shadows of version 0.1; {remedy}.")
        refuse_others(data.people, data.targets, recorded_people(folder), folder)
        if [entry[:2] for entry in recorded_people(folder)] != scans:
            raise UsageError(f"{folder} holds the people of the run in another order; {remedy}.")
    predictions = np.stack([shadow["predictions"][-1] for shadow in shadows])
    return Shadows(predictions, np.stack([shadow["inside"] for shadow in shadows]))
