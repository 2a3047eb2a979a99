"""Every config runs, in its smallest form, from files to predictions."""

import jax
import numpy as np
import pytest

from fedsparse_jax.config import build, defaults, method
from fedsparse_jax.core.types import UsageError
from fedsparse_jax.reporting import report
from fedsparse_jax.runs import checkpoint, loop
from tests.test_structure import PACKAGE

CONFIGS = sorted(path.stem for path in (PACKAGE.parent / "configs").glob("*.py"))
METHODS = [name for name in CONFIGS if name not in ("quickstart", "real", "audit")]
FORMS = {
    "one_shot": ["tuned"],
    "fedsparsify_global": ["tuned"],
    "fedsparsify_local": ["keepers", "nnz", "mean"],
    "centralized": ["dense"],
}
DENSE = {"fedavg", "fedprox", "fedadam", "centralized:dense"}
OUTCOME = {"prunefl", "lotteryfl", "fedsparsify_local"}  # whose sparsity is measured, not set


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def smoke(name, cache, mode="smoke"):
    config = build.load(f"configs/{name}.py:{mode}")
    config.data.cache_dir = cache
    return config


def check(records, name):
    last = records[-1]
    assert len(records) == 3 and last["finite"]
    if name in DENSE:
        assert last["sparsity"] == last["target_sparsity"] == 0
    elif name.partition(":")[0] not in OUTCOME:
        assert last["sparsity"] == pytest.approx(last["target_sparsity"], abs=1e-3) and last["sparsity"] > 0.7
    else:
        assert 0.3 < last["sparsity"] < 1


@pytest.mark.parametrize("name", CONFIGS)
def test_smoke(name, cache, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    one = build.experiment(smoke(name, cache))
    records = loop.run(one, tmp_path, say=lambda _: None)
    assert np.isfinite(records[-1]["test_mae"])
    assert (tmp_path / "predictions.tsv").read_text().count("\n") == len(one.data.test) + 1
    check(records, name)


@pytest.mark.parametrize("name", METHODS + [f"{name}:{form}" for name in FORMS for form in FORMS[name]])
def test_smoke_on_digits(name, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    path, _, form = name.partition(":")
    config = build.load(f"configs/{path}.py:" + "+".join(filter(None, ["smoke", "digits", form])))
    records = loop.run(build.experiment(config), tmp_path, say=lambda _: None)
    assert 0 < records[-1]["test_accuracy"] <= 1 and 0 < records[-1]["own_accuracy"] <= 1
    assert report.write(tmp_path).exists()
    check(records, name)


class Killed(BaseException):
    pass


def kill_after_one(line):
    if line.startswith("round 1/"):
        raise Killed


@pytest.mark.parametrize("name", ["lotteryfl", "feddst", "prunefl", "salient_grads"])
def test_a_stopped_run_goes_on_bit_for_bit(name, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    config = build.load(f"configs/{name}.py:digits+smoke")
    with config.unlocked():
        config.participation, config.client.optimizer_state = 0.5, "kept"
        config.client.optimizer = dict(name="sgd", learning_rate=0.1, momentum=0.9)
    one, quiet = build.experiment(config), lambda _: None
    loop.run(one, tmp_path / "whole", quiet)
    with pytest.raises(Killed):
        loop.run(one, tmp_path / "parts", kill_after_one)
    loop.run(one, tmp_path / "parts", quiet)
    states = []
    for part in ("whole", "parts"):
        with checkpoint.open_manager(tmp_path / part) as manager:
            like = jax.eval_shape(one.algorithm.init, jax.random.key(0))
            states.append(checkpoint.digest(checkpoint.restore(manager, like)))
    assert states[0] == states[1]


@pytest.mark.parametrize("forms", ["digits+cnn", "digits+iid+90", "cnn"])
def test_forms_of_the_second_task(forms, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    if "digits" not in forms:
        with pytest.raises(UsageError, match="no form 'cnn'"):
            build.load(f"configs/fedavg.py:{forms}")
        return
    config = build.load(f"configs/fedsparsify_global.py:{forms}+smoke")
    records = loop.run(build.experiment(config), tmp_path, say=lambda _: None)
    assert ("conv1/kernel" in records[-1]["density"]) == ("cnn" in forms)
    assert records[-1]["sparsity"] == pytest.approx(0.9 if "90" in forms else 0.95, abs=1e-3)


def test_a_sparsity_in_percent(repository, monkeypatch):
    monkeypatch.chdir(repository)
    assert build.load("configs/snip.py:digits+90").pruning.sparsity == 0.9
    assert build.load("configs/snip.py:97.5").pruning.sparsity == 0.975


@pytest.mark.parametrize(
    ("spec", "rounds", "said"),
    [
        (
            "one_shot.py:digits+tuned",
            20,
            ["Note: after 20 rounds the schedule asks for a sparsity of 0.000, not 0.95"],
        ),
        ("fedsparsify_global.py:digits", 20, []),
        ("prunefl.py:digits", 5, ["Note: solo_rounds is 10 of 5 rounds"]),
        ("feddst.py:digits", 5, []),
        ("lotteryfl.py:digits", 5, ["Note: after 5 rounds the schedule asks for a sparsity of 0.672"]),
    ],
)
def test_what_does_not_fit_the_rounds_is_said_before_the_first(spec, rounds, said, repository, monkeypatch):
    monkeypatch.chdir(repository)
    config = build.load(f"configs/{spec}")
    config.rounds = rounds
    remarks = build.experiment(config).remarks
    assert len(remarks) == len(said) and all(r.startswith(s) for r, s in zip(remarks, said))


def test_a_quorum_from_the_command_line_is_text(repository, monkeypatch):
    monkeypatch.chdir(repository)
    config = build.load("configs/fedsparsify_local.py:digits")
    config.aggregation.quorum = "0.6"
    assert method.aggregator(config).keywords["quorum"] == 0.6


@pytest.mark.parametrize("name", METHODS)
def test_the_docstring_holds_command_and_expectation(name, repository):
    text = (repository / f"configs/{name}.py").read_text().split('"""')[1]
    assert f"python scripts/train.py --config=configs/{name}.py" in text
    assert "xpect" in text and "docs/methods.md" in text
    assert any(mark in text for mark in ("arXiv", "2017", "reference"))


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
    config = smoke("quickstart", cache)
    config.participation = 0.5
    records = loop.run(build.experiment(config), tmp_path, say=lambda _: None)
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
    "init without sparsity": (dict(pruning__placement="init", pruning__schedule=dict(name="gradual")), r"asks for no sparsity there; take the schedule 'constant'"),
    "arrival and server": (dict(pruning__placement="arrival+server"), r"'arrival' gives every client a mask of its own"),
    "swap on dense": (dict(regrowth__placement="client"), r"regrowth.rule 'swap' puts as many weights back"),
    "init and a rising schedule": (dict(pruning__placement="init", pruning__schedule=dict(name="gradual", initial=0.5)), r"the schedule goes on rising"),
    "floor on dense": (dict(pruning__floor=0.1), r"pruning.floor guards against pruning, but"),
    "gate of 50": (dict(pruning__gate=50.0, pruning__placement="arrival"), r"pruning.gate is 50.0"),
    "growing unions": (dict(regrowth__placement="client", pruning__placement="init"), r"their union gets denser"),
    "line search": (dict(client__optimizer=dict(name="lbfgs", learning_rate=0.1)), r"client.optimizer.name is 'lbfgs', which needs more than a gradient"),
    "joined placements": (dict(pruning__placement="server,init"), r"pruning.placement is 'server,init'"),
    "negative mu": (dict(client__proximal=-1.0), r"client.proximal is -1.0: it must not be negative"),
    "anchor": (dict(client__towards="mean", client__proximal=1.0), r"client.towards is 'mean'"),
    "state": (dict(client__optimizer_state="old"), r"client.optimizer_state is 'old': it must be one of fresh, kept"),
    "floor": (dict(pruning__floor=1.0, pruning__placement="server"), r"pruning.floor is 1.0"),
    "over": (dict(pruning__over="some"), r"pruning.over is 'some'"),
    "gate": (dict(pruning__gate=0.2, pruning__placement="arrival"), r"pruning.gate is a share of right predictions"),
    "iterations": (dict(pruning__iterations=0), r"pruning.iterations is 0"),
    "sparsity": (dict(pruning__sparsity=1.2), r"pruning.schedule.final is 1.2"),
    "regrowth": (dict(regrowth__placement="begin"), r"regrowth.placement is 'begin'"),
    "rule": (dict(regrowth=dict(placement="server", criterion="magnitude", begin=1, every=1, end=0, rule=dict(name="rewire"))), r"regrowth.rule.name is 'rewire'"),
    "task": (dict(task="survival"), r"task is 'survival': it must be one of regression, classification"),
    "solo": (dict(solo_rounds=1, execution__devices=2), r"solo_rounds has one client alone"),
    "quorum": (dict(aggregation=dict(name="majority_vote", quorum="most")), r"aggregation.quorum is 'most'"),
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
