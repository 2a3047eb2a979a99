"""Configs that cannot be: each is refused in one sentence that names the key, before anything is trained."""

import pytest

from fedsparse_jax.config import (
    defaults,
    experiment_from_config,
    load_config,
    override,
    read_scans,
    shrink_for_smoke_test,
    upgrade_config,
)
from fedsparse_jax.config.build import federation_from_config, model_from_config
from fedsparse_jax.core.errors import UsageError


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def change(**keys):
    """The default config with some keys, given with __ for dots, replaced."""
    config = shrink_for_smoke_test(defaults())
    with config.unlocked():
        for key, value in keys.items():
            *path, last = key.split("__")
            section = config
            for name in path:
                section = section[name]
            section[last] = value
    return config


LOTTERY = dict(name="lottery_tickets")
REWIRE = dict(placement="server", criterion="magnitude", begin=1, every=1, end=0, rule=dict(name="rewire"))
BAD = {
    "patience": (
        dict(early_stopping__patience=5),
        r"^early_stopping.patience is 5, but data.validation_share is 0.0, so that nobody is there .* to 0.2, or early",
    ),
    "no patience": (dict(early_stopping__patience=-1), r"^early_stopping.patience is -1: it must not be negative"),
    "validation": (dict(data__validation_share=1.5), r"^data.validation_share is 1.5: it is a share of the people who"),
    "nobody validates": (dict(data__validation_share=1e-6), r"^data.validation_share is 1e-06: of 3\d people it puts 0"),
    "tracker": (dict(log__tracker="nobody"), r"^log.tracker is 'nobody': it must be one of wandb, mlflow, or FILE.py"),
    "model": (dict(model=dict(name="resnet")), r"model.name is 'resnet': it must be one of brain_age_cnn, flat_cnn"),
    "option": (
        dict(model=dict(name="flat_cnn", widhts=(4,))),
        r"model.widhts is not an option of 'flat_cnn', which takes: widths",
    ),
    "shape": (
        dict(model=dict(name="brain_age_cnn")),
        r"data.shape is \(16, 18, 16\): that does not survive 5 poolings",
    ),
    "convolution": (
        dict(model=dict(name="brain_age_cnn", convolution="fast"), data__shape=(64, 64, 32)),
        r"model.convolution is 'fast'",
    ),
    "precision": (dict(precision="half"), r"^precision is 'half'"),
    "partition": (dict(partition__name="fair"), r"partition.name is 'fair'"),
    "clients": (dict(partition__num_clients=50), r"partition.num_clients is 50: only 30 people are left"),
    "skew": (dict(partition=dict(name="skewed_iid", num_clients=20)), r"leaves client \d+ of 20 without data"),
    "optimizer": (dict(client__optimizer=dict(name="adamm", learning_rate=1.0)), r"client.optimizer.name is 'adamm'"),
    "rate": (dict(client__optimizer=dict(name="sgd", rate=1.0)), r"client.optimizer.rate is not an option of 'sgd'"),
    "schedule of rates": (
        dict(client__learning_rate_schedule=dict(name="cosine")),
        r"client.learning_rate_schedule.name is 'cosine': it must be one of constant_schedule, cosine_decay_schedule",
    ),
    "option of rates": (
        dict(server__learning_rate_schedule=dict(name="cosine_decay_schedule", alfa=0.1)),
        r"server.learning_rate_schedule.alfa is not an option of 'cosine_decay_schedule', which takes: init_value, decay_steps, alpha",
    ),
    "argument of rates": (
        dict(client__learning_rate_schedule=dict(name="linear_schedule")),
        r"client.learning_rate_schedule: 'linear_schedule' lacks an argument, or one does not fit \(.*end_value",
    ),
    "negative rate": (
        dict(rounds=3, client__learning_rate_schedule=dict(name="linear_schedule", end_value=-1.0)),
        r"client.learning_rate_schedule multiplies the learning rate by -0.333333 in round 3",
    ),
    "decay": (dict(client__weight_decay=-0.1), r"client.weight_decay is -0.1: it must not be negative"),
    "decay twice": (
        dict(client__weight_decay=0.1, client__optimizer=dict(name="adamw", learning_rate=0.1)),
        r"'adamw' decays weights itself; set client.weight_decay to 0.0 and client.optimizer.weight_decay to that",
    ),
    "augmentation": (
        dict(client__augmentation=dict(name="crop")),
        r"client.augmentation.name is 'crop': it must be one of basic, shift, flip",
    ),
    "shift": (dict(client__augmentation=dict(name="shift", voxels=-1)), r"client.augmentation.voxels is -1: it must be"),
    "flip": (dict(client__augmentation=dict(name="basic", flip=2.0)), r"client.augmentation.flip is 2.0: it is a chance"),
    "no rate": (dict(server__optimizer=dict(name="sgd")), r"server.optimizer: 'sgd' lacks an argument"),
    "schedule": (dict(pruning__schedule=dict(name="gradual", final=1.5)), r"pruning.schedule.final is 1.5"),
    "criterion": (dict(pruning__criterion="size"), r"pruning.criterion is 'size': it must be one of magnitude"),
    "placement": (dict(pruning__placement="everywhere"), r"pruning.placement is 'everywhere'"),
    "placement of before": (
        dict(pruning__placement="arrival"),
        r"pruning.placement is 'arrival': it must be none, or some of init",
    ),
    "aggregation": (dict(aggregation=dict(name="mean", quorum=0.5)), r"aggregation.quorum is not an option of 'mean'"),
    "loss": (dict(client__loss="hinge"), r"client.loss is 'hinge'"),
    "source": (dict(data__source="dicom"), r"data.source is 'dicom': it must be one of phantom, bids, table"),
    "liars": (dict(poison=dict(name="sign_flip", clients=9)), r"^poison.clients is 9, but there are 8 clients; lower"),
    "source option": (dict(data__options=dict(peple=3)), r"data.options.peple is not an option of 'phantom'"),
    "no root": (dict(data__source="bids", data__options={}), r"data.root is '': set it to the BIDS folder"),
    "no folder": (dict(data__source="bids", data__options={}, data__root="/nowhere"), r"^data.root is '/nowhere': there is no such folder"),
    "align": (dict(data__align="never"), r"data.align is 'never': it must be one of"),
    "participation": (dict(participation=0.0), r"^participation is 0.0"),
    "test share": (dict(data__test_share=0.0), r"data.test_share is 0.0"),
    "rounds": (dict(rounds=0), r"rounds is 0: it must be at least 1"),
    "batch": (dict(client__batch_size=0), r"client.batch_size is 0"),
    "devices": (dict(execution__devices=99), r"execution.devices is 99, but there are 4"),
    "uneven": (dict(execution__devices=3), r"8 clients take part in a round: one must be a multiple of the other"),
    "shares": (dict(execution__devices=4, partition__num_clients=2), r"each of the 2 clients of a round has 2 devices: client.batch_size, 1,"),
    "resident": (dict(execution__resident="maybe"), r"execution.resident is 'maybe': it must be one of auto, yes, no"),
    "init without sparsity": (
        dict(pruning__placement="init", pruning__schedule=dict(name="gradual")),
        r"asks for no sparsity there; take the schedule 'constant'",
    ),
    "own masks and server": (dict(pruning__placement="server", hooks=LOTTERY), r"every client has a mask of its own"),
    "swap on dense": (dict(regrowth__placement="client"), r"regrowth.rule 'swap' puts as many weights back"),
    "init and a rising schedule": (
        dict(pruning__placement="init", pruning__schedule=dict(name="gradual", initial=0.5)),
        r"the schedule goes on rising",
    ),
    "floor on dense": (dict(pruning__floor=0.1), r"pruning.floor guards against pruning, but"),
    "growing unions": (dict(regrowth__placement="client", pruning__placement="init"), r"their union gets denser"),
    "line search": (
        dict(client__optimizer=dict(name="lbfgs", learning_rate=0.1)),
        r"client.optimizer.name is 'lbfgs': it must be one of adabelief",
    ),
    "joined placements": (dict(pruning__placement="server,init"), r"pruning.placement is 'server,init'"),
    "negative mu": (dict(client__proximal=-1.0), r"client.proximal is -1.0: it must not be negative"),
    "anchor": (dict(client__proximal_anchor="mean", client__proximal=1.0), r"client.proximal_anchor is 'mean'"),
    "state": (dict(client__optimizer_state="old"), r"client.optimizer_state is 'old': it must be one of fresh, kept"),
    "floor": (dict(pruning__floor=1.0, pruning__placement="server"), r"pruning.floor is 1.0"),
    "scored clients": (dict(pruning__scored_clients="some"), r"pruning.scored_clients is 'some'"),
    "hook": (dict(hooks=dict(name="lottery")), r"hooks.name is 'lottery': it must be one of .*lottery_tickets"),
    "option of a hook": (
        dict(hooks=dict(name="lottery_tickets", gate=0.2)),
        r"hooks.gate is not an option of 'lottery_tickets'",
    ),
    "least accuracy": (
        dict(hooks=dict(name="lottery_tickets", min_accuracy=0.2)),
        r"hooks.min_accuracy is a share of right predictions",
    ),
    "error feedback": (dict(hooks=dict(name="error_feedback")), r"add 'server' to pruning.placement"),
    "budgets": (dict(hooks=dict(name="flash", budgets=(2.0,))), r"hooks.budgets is \(2.0,\)"),
    "iterations": (dict(pruning__iterations=0), r"pruning.iterations is 0"),
    "sparsity": (dict(pruning__sparsity=1.2), r"pruning.schedule.final is 1.2"),
    "regrowth": (dict(regrowth__placement="begin"), r"regrowth.placement is 'begin'"),
    "rule": (dict(regrowth=REWIRE), r"regrowth.rule.name is 'rewire'"),
    "task": (dict(task="survival"), r"task is 'survival': it must be one of regression, classification"),
    "solo": (dict(solo_rounds=1, execution__devices=2), r"solo_rounds has one client alone"),
    "quorum": (dict(aggregation=dict(name="majority_vote", quorum="most")), r"aggregation.quorum is 'most'"),
    "client map": (dict(execution__client_map="pmap"), r"execution.client_map is 'pmap'"),
    "messages": (
        dict(communication__mode="through"),
        r"communication.mode is 'through': it must be one of off, measure, transmit",
    ),
    "lossy": (dict(communication__dtype="int8"), r"communication.dtype is 'int8': that changes what is received"),
    "half private": (dict(privacy__clip=1.0), r"privacy.clip is 1.0 and privacy.noise is 0.0"),
    "unit": (dict(privacy__unit="family"), r"privacy.unit is 'family': it must be one of scan, person"),
    "chance": (dict(privacy__delta=1.0), r"privacy.delta is 1.0: it is a chance"),
    "audit of nothing": (dict(log__audit_every=1, log__audit_attacks=("magic",)), r"log.audit_attacks is 'magic'"),
}  # fmt: skip


def test_a_config_file_that_names_another_source_need_not_empty_the_options_of_the_phantom(tmp_path):
    lines = ["from fedsparse_jax.config import defaults", "def get_config(forms=''):", "    config = defaults()"]
    (tmp_path / "own.py").write_text("\n".join([*lines, "    config.data.source = 'bids'", "    return config"]))
    assert load_config(f"{tmp_path}/own.py").data.options.to_dict() == {}
    (tmp_path / "own.py").write_text("\n".join([*lines, "    return config"]))
    assert load_config(f"{tmp_path}/own.py").data.options == defaults().data.options


@pytest.mark.parametrize("what", BAD)
def test_bad_configs_are_one_sentence(what, cache):
    keys, message = BAD[what]
    config = change(**keys)
    with config.unlocked():
        config.data.cache_dir = cache
    with pytest.raises(UsageError, match=message) as refusal:
        experiment_from_config(config)
    assert "\n" not in str(refusal.value)


def test_a_least_accuracy_is_a_share_and_not_in_percent(repository):
    config = load_config(f"{repository}/configs/methods/lotteryfl.py:digits")
    config.hooks.min_accuracy = 50.0
    with pytest.raises(UsageError, match=r"^hooks.min_accuracy is 50.0: it is a share of right predictions"):
        experiment_from_config(config)


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match=r"There is no config file configs/none.py"):
        load_config("configs/none.py:smoke")


def test_the_network_gets_the_ages_that_it_was_not_given(cache):
    config = change(model=dict(name="flat_cnn", widths=(4,), output_scale=7.0))
    network, section = model_from_config(config, train_ages=[50.0, 60.0, 70.0])
    assert section["output_mean"] == 60.0 and section["output_scale"] == 7.0
    assert model_from_config(config)[1]["output_mean"] == 1.0  # no ages yet: only shapes are asked for
    assert callable(network.init) and callable(network.apply)


def test_a_test_set_may_be_given_of_images_too(repository):
    config = load_config(f"{repository}/configs/methods/fedavg.py:digits")
    data, _ = federation_from_config(config, test=[0, 3, 9])
    assert data.test.tolist() == [0, 3, 9] and sum(map(len, data.members)) == len(data.targets) - 3


def test_a_test_set_may_be_given(cache):
    config = change(data__cache_dir=cache)
    data, dropped = federation_from_config(config, test=[0, 1, 2])
    assert len(data.test) == 3 and sum(map(len, data.members)) == 37 and dropped == {}
    assert len(data.members) == 8


def test_what_an_experiment_is_made_of(cache):
    config = change(data__cache_dir=cache, participation=0.5, execution__client_map="2", checkpoint__keep=7)
    experiment = experiment_from_config(config)
    assert experiment.cohorts == (4, 0, "") and experiment.batching == (1, 1, 1)
    assert experiment.execution.num_parallel_clients == 2 and experiment.output.checkpoints_kept == 7
    assert experiment.messages.mode == "measure" and experiment.messages.seed == 1990
    assert experiment.config["model"]["output_mean"] == pytest.approx(experiment.federation.train_targets.mean())
    assert experiment.leakage is None and experiment.epsilon is None and experiment.remarks == ()


def test_a_cache_that_cannot_be_written_is_one_sentence_that_names_the_key(tmp_path):
    (tmp_path / "file").touch()
    config = change(data__cache_dir=str(tmp_path / "file/cache"))
    with pytest.raises(
        UsageError, match=r"^data.cache_dir is '.*file/cache', where nothing can be written \(.*; set --c"
    ):
        read_scans(config)


def test_nobodys_home_is_one_sentence_that_names_the_key(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(
        UsageError, match=r"^data.cache_dir is '~/.cache.*nobody knows your home folder; set --.*HOME\.$"
    ):
        read_scans(change(data__cache_dir="~/.cache/fedsparse_jax"))


def test_a_run_is_told_by_the_tracker_that_is_named_and_whoever_opens_its_folder_is_not(tmp_path):
    (tmp_path / "mine.py").write_text("def tell(config, workdir):\n    pass\n")
    digits = load_config("configs/methods/fedavg.py:digits+smoke")
    assert experiment_from_config(digits).output.tracker is None
    config = override(digits, [("log.tracker", f"{tmp_path / 'mine.py'}:tell")])
    assert experiment_from_config(config).output.tracker.__name__ == "tell"
    assert upgrade_config(config.to_dict()).log.tracker == ""
