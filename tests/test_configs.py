"""Every config runs, in its smallest form, from files to predictions."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from fedsparse_jax.config import experiment_from_config, load_config
from fedsparse_jax.reporting import write_report
from fedsparse_jax.runs import run_experiment
from fedsparse_jax.runs.checkpoint import open_manager, restore_checkpoint, state_digest
from tests.helpers.interrupted import QUIET, Killed, stop_after

FOLDER = Path(__file__).parent.parent / "configs"
METHODS = sorted(path.stem for path in (FOLDER / "methods").glob("*.py"))
CONFIGS = sorted(path.stem for path in FOLDER.glob("*.py")) + [f"methods/{name}" for name in METHODS]
FORMS = {
    "one_shot": ["tuned"],
    "fedsparsify_global": ["tuned"],
    "fedsparsify_local": ["keepers", "nnz", "mean"],
    "centralized": ["dense"],
    "rigl": ["fedtiny"],
    "flash": ["budgets"],
}
SLOW_FORMS = [pytest.param(f"{name}:{form}", marks=pytest.mark.slow) for name, forms in FORMS.items() for form in forms]
DENSE = {"fedavg", "fedprox", "fedadam", "scaffold", "fedper", "cyclic", "travelling", "centralized:dense"}
OUTCOME = {"prunefl", "lotteryfl", "fedsparsify_local", "sparsyfed"}  # whose sparsity is measured, not set


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def load(name, *forms):
    return load_config(f"{FOLDER / name}.py:{'+'.join(filter(None, forms))}")


def smoke(name, cache):
    config = load(name, "smoke")
    config.data.cache_dir = cache
    return config


def check(records, name):
    last = records[-1]
    assert len(records) == 3 and last.finite
    if name in DENSE:
        assert last.sparsity == last.target_sparsity == 0
    elif name.partition(":")[0] not in OUTCOME:
        assert last.sparsity == pytest.approx(last.target_sparsity, abs=1e-3) and last.sparsity > 0.7
    else:
        assert 0.3 < last.sparsity < 1


QUICK = {"quickstart"}
ON_SCANS = [name for name in CONFIGS if "/" not in name] + ["methods/centralized", "methods/fedsparsify_local"]
SLOW = [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in ON_SCANS]  # all: on the digits


@pytest.mark.parametrize("name", SLOW)
def test_smoke(name, cache, tmp_path):
    experiment = experiment_from_config(smoke(name, cache))
    records = run_experiment(experiment, tmp_path, print_fn=QUIET)
    assert np.isfinite(records[-1].test[experiment.task.headline])
    lines = (tmp_path / "predictions.tsv").read_text().count("\n")
    assert lines == len(experiment.federation.test) + 1
    check(records, name.removeprefix("methods/"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*METHODS, *SLOW_FORMS])
def test_smoke_on_digits(name, tmp_path, undrawn):
    method, _, form = name.partition(":")
    config = load(f"methods/{method}", "smoke", "digits", form)
    records = run_experiment(experiment_from_config(config), tmp_path, print_fn=QUIET)
    assert 0 < records[-1].test["accuracy"] <= 1 and 0 < records[-1].own["accuracy"] <= 1
    assert write_report(tmp_path).exists()
    check(records, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["lotteryfl", "feddst", "prunefl", "salient_grads", "scaffold", "fedper", "cyclic", "feddip", "flash:budgets"],
)
def test_a_stopped_run_goes_on_bit_for_bit(name, tmp_path):
    config = load("methods/" + name.partition(":")[0], "digits", "smoke", name.partition(":")[2])
    with config.unlocked():
        config.participation, config.client.optimizer_state = 0.5, "kept"
        config.client.optimizer = dict(name="sgd", learning_rate=0.1, momentum=0.9)
    experiment = experiment_from_config(config)
    run_experiment(experiment, tmp_path / "whole", QUIET)
    with pytest.raises(Killed):
        run_experiment(experiment, tmp_path / "parts", stop_after(1))
    run_experiment(experiment, tmp_path / "parts", QUIET)
    digests = []
    for part in ("whole", "parts"):
        with open_manager(tmp_path / part) as manager:
            like = jax.eval_shape(experiment.algorithm.init, jax.random.key(0))
            digests.append(state_digest(restore_checkpoint(manager, like)))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("name", [*METHODS, "one_shot:tuned"])
def test_every_method_takes_the_coarse_phantom_of_the_quickstart(name):
    method, _, form = name.partition(":")
    config, quickstart = load(f"methods/{method}", "coarse", "90", form), load("quickstart", "dense")
    assert (config.model.name, config.rounds, config.pruning.sparsity) == ("flat_cnn", 40, 0.9)
    assert config.data == quickstart.data and config.client.batch_size == quickstart.client.batch_size


@pytest.mark.slow
@pytest.mark.parametrize("forms", ["digits+cnn", "digits+iid+90"])
def test_forms_of_the_second_task(forms, tmp_path):
    config = load("methods/fedsparsify_global", forms, "smoke")
    records = run_experiment(experiment_from_config(config), tmp_path, print_fn=QUIET)
    assert ("conv1/kernel" in records[-1].density) == ("cnn" in forms)
    assert records[-1].sparsity == pytest.approx(0.9 if "90" in forms else 0.95, abs=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_the_docstring_holds_command_and_expectation(name):
    text = (FOLDER / f"methods/{name}.py").read_text().split('"""')[1]
    assert f"python scripts/train.py --config=configs/methods/{name}.py" in text
    assert "xpect" in text and "docs/results/methods.md" in text
    assert any(mark in text for mark in ("arXiv", "2017", "reference"))


@pytest.mark.parametrize("name", CONFIGS)
def test_flags_in_a_docstring_are_keys_of_the_config(name):
    text, config = (FOLDER / f"{name}.py").read_text().split('"""')[1], load(name)
    for key in re.findall(r"--config\.([\w.]+)=", text):
        section = config
        for part in key.split("."):
            assert part in section, f"the config has no key {key}"
            section = section[part]


@pytest.mark.parametrize("mode", ["dense", "local", "centralized"])
def test_quickstart_variants_are_what_they_say(mode):
    config = load("quickstart", mode)
    placement = {"dense": "none", "local": "client", "centralized": "server"}[mode]
    assert config.pruning.placement == placement
    assert config.partition.num_clients == (1 if mode == "centralized" else 8)
    assert config.aggregation.name == ("majority_vote" if mode == "local" else "mean")


@pytest.mark.slow
def test_half_of_the_clients_take_part(cache, tmp_path):
    config = smoke("quickstart", cache)
    config.participation = 0.5
    records = run_experiment(experiment_from_config(config), tmp_path, print_fn=QUIET)
    assert all(len(record.cohort) == 4 for record in records)
    assert len({tuple(record.cohort) for record in records}) > 1


@pytest.mark.parametrize("name", ["fedavg", "fedsparsify_global", "fedsparsify_local", "centralized"])
def test_the_papers_network_is_the_default(name):
    config = load(f"methods/{name}")
    assert config.model.name == "brain_age_cnn" and tuple(config.data.shape) == (91, 109, 91)
    assert config.rounds == 40 and config.client.epochs == 4
