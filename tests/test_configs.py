"""Every config runs, in its smallest form, from files to predictions."""

import numpy as np
import pytest

from fedsparse_jax import build, defaults, experiment
from fedsparse_jax.types import UsageError
from tests.test_structure import PACKAGE

CONFIGS = sorted(path.name for path in (PACKAGE.parent / "configs").glob("*.py"))
VARIANTS = {"": (), "dense": (), "local": (), "centralized": ()}


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def smoke(name, cache, mode="smoke"):
    config = build.load(f"configs/{name}:{mode}")
    config.data.cache_dir = cache
    return config


@pytest.mark.parametrize("name", CONFIGS)
def test_smoke(name, cache, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    config = smoke(name, cache)
    one = build.experiment(config)
    records = experiment.run(one, tmp_path, say=lambda _: None)
    assert len(records) == 3 and np.isfinite(records[-1]["test_mae"])
    assert (tmp_path / "predictions.tsv").read_text().count("\n") == len(one.data.test) + 1
    asked = records[-1]["target_sparsity"]
    final = 0.0 if config.pruning.placement == "none" else config.pruning.schedule.final
    assert asked == pytest.approx(final) and final in (0.0, 0.8, 0.95)
    if config.pruning.placement == "server":
        assert records[-1]["sparsity"] == pytest.approx(final, abs=1e-3)


@pytest.mark.parametrize("mode", ["dense", "local", "centralized"])
def test_quickstart_variants_are_what_they_say(mode, repository, monkeypatch):
    monkeypatch.chdir(repository)
    config = build.load(f"configs/quickstart.py:{mode}")
    placement = {"dense": "none", "local": "client", "centralized": "server"}[mode]
    assert config.pruning.placement == placement
    assert config.partition.num_clients == (1 if mode == "centralized" else 8)
    assert config.aggregation.name == ("majority_vote" if mode == "local" else "mean")


def test_half_of_the_clients_take_part(cache, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    config = smoke("quickstart.py", cache)
    config.participation = 0.5
    records = experiment.run(build.experiment(config), tmp_path, say=lambda _: None)
    assert all(len(record["cohort"]) == 4 for record in records)
    assert len({tuple(record["cohort"]) for record in records}) > 1


def test_the_papers_network_is_the_default(repository, monkeypatch):
    monkeypatch.chdir(repository)
    for name in ("fedavg.py", "fedsparsify_global.py", "fedsparsify_local.py", "centralized.py"):
        config = build.load(f"configs/{name}")
        assert config.model.name == "brain_age_cnn" and tuple(config.data.shape) == (91, 109, 91)
        assert config.rounds == 40 and config.client.epochs == 4


def change(**keys):
    """The default config with some keys, given with __ for dots, replaced."""
    config = defaults.small(defaults.defaults())
    with config.unlocked():
        for key, value in keys.items():
            *path, last = key.split("__")
            section = config
            for name in path:
                section = section[name]
            section[last] = value
    return config


BAD = {
    "model": (dict(model=dict(name="resnet")), r"model.name is 'resnet': it must be one of brain_age_cnn, flat_cnn"),
    "option": (dict(model=dict(name="flat_cnn", widhts=(4,))), r"model.widhts is not an option of 'flat_cnn', which takes: widths"),
    "shape": (dict(model=dict(name="brain_age_cnn")), r"data.shape \(16, 18, 16\) does not survive 5 poolings"),
    "partition": (dict(partition__name="fair"), r"partition.name is 'fair'"),
    "clients": (dict(partition__num_clients=50), r"partition.num_clients is 50, but only 32 people are left"),
    "skew": (dict(partition=dict(name="skewed_iid", num_clients=20)), r"leaves client \d+ of 20 without data"),
    "optimizer": (dict(client__optimizer=dict(name="adamm", learning_rate=1.0)), r"client.optimizer.name is 'adamm'"),
    "rate": (dict(client__optimizer=dict(name="sgd", rate=1.0)), r"client.optimizer.rate is not an option of 'sgd'"),
    "schedule": (dict(pruning__schedule=dict(name="gradual", final=1.5)), r"pruning.schedule.final is 1.5"),
    "criterion": (dict(pruning__criterion="size"), r"pruning.criterion is 'size': it must be one of magnitude"),
    "placement": (dict(pruning__placement="everywhere"), r"pruning.placement is 'everywhere'"),
    "aggregation": (dict(aggregation=dict(name="mean", quorum=0.5)), r"aggregation.quorum is not an option of 'mean'"),
    "loss": (dict(client__loss="hinge"), r"client.loss is 'hinge'"),
    "source": (dict(data__source="dicom"), r"data.source is 'dicom': it must be one of phantom, bids, table"),
    "source option": (dict(data__options=dict(peple=3)), r"data.options.peple is not an option of 'phantom'"),
    "no root": (dict(data__source="bids", data__options={}), r"data.root is empty"),
    "no folder": (dict(data__source="bids", data__options={}, data__root="/nowhere"), r"There is no folder /nowhere"),
    "participation": (dict(participation=0.0), r"participation is 0.0"),
    "test share": (dict(data__test_share=0.0), r"data.test_share is 0.0"),
    "rounds": (dict(rounds=0), r"rounds is 0: it must be at least 1"),
    "batch": (dict(client__batch_size=0), r"client.batch_size is 0"),
    "devices": (dict(execution__devices=99), r"execution.devices is 99, but there are 4"),
    "uneven": (dict(execution__devices=3), r"8 clients take part in a round: their number must be a multiple"),
    "resident": (dict(execution__resident="maybe"), r"execution.resident is 'maybe': it must be one of auto, yes, no"),
    "client map": (dict(execution__client_map="pmap"), r"execution.client_map is 'pmap'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_configs_are_one_sentence(what, cache):
    keys, message = BAD[what]
    config = change(**keys)
    with config.unlocked():
        config.data.cache_dir = cache
    with pytest.raises(UsageError, match=message) as refusal:
        build.experiment(config)
    assert "\n" not in str(refusal.value)
