"""Runs that start from weights: of another run, or of a file; what is taken, what is new, what is refused."""

import jax
import numpy as np
import pytest

from fedsparse_jax.config import experiment_from_config, load_config, load_run, override
from fedsparse_jax.core import masks
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.export import read_sparse, sparse_bytes
from fedsparse_jax.models.sfcn import params_of_sfcn
from fedsparse_jax.runs import run_experiment
from fedsparse_jax.runs.checkpoint import state_digest
from fedsparse_jax.studies import export_run
from tests.helpers import torch_writer
from tests.helpers.interrupted import QUIET, Killed, stop_after

SMALL = "digits+smoke+80"


def config_of(name, *settings):
    quiet = [("log.report", "False"), ("log.tensorboard", "False")]
    return override(load_config(f"configs/methods/{name}.py:{SMALL}"), [*quiet, *settings])


def start_of(config):
    """The experiment, and the state before round 1."""
    experiment = experiment_from_config(config)
    return experiment, experiment.algorithm.init(jax.random.key(config.seed))


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run of three rounds that ends at a sparsity of 80 %."""
    folder = tmp_path_factory.mktemp("source") / "run"
    run_experiment(experiment_from_config(config_of("fedsparsify_global")), folder, QUIET)
    return folder


def test_a_run_begins_with_the_last_model_of_another(source):
    _, _, last = load_run(source)
    experiment, server = start_of(config_of("fedavg", ("model.init_from", str(source))))
    same((server.params, server.masks), (last.params, last.masks))
    assert float(np.mean([np.asarray(leaf).mean() for leaf in jax.tree.leaves(server.masks)])) < 1
    assert int(server.round) == 0 and len(experiment.config["model"]["init_sha256"]) == 64
    assert experiment.remarks[0].startswith(f"Weights from {source}: 4 of 4 leaves (SHA-256 ")


def test_people_who_know_the_weights_are_told_where_they_are_to_judge(source):
    begin = ("model.init_from", str(source))
    assert not any("Warning" in remark for remark in start_of(config_of("fedavg", begin))[0].remarks)  # the same split
    experiment, _ = start_of(config_of("fedavg", begin, ("seed", "5"), ("data.validation_share", "0.3")))
    sets = {
        row.split("\t")[0]: row.rstrip().split("\t")[-1] for row in (source / "people.tsv").read_text().splitlines()
    }
    data = experiment.federation
    count = lambda rows: sum(sets[data.people[row]["participant_id"]] != "test" for row in rows)
    known, validating = count(data.test), count(data.validation_rows)
    assert 0 < known < len(data.test) and validating > 0
    told = f"{known} of {len(data.test)} people of the test set and {validating} of {len(data.validation_rows)} people"
    assert any(
        f"Warning: the weights were trained on {told} of the validation" in remark for remark in experiment.remarks
    )


def test_an_earlier_round_and_a_start_without_its_mask(source):
    settings = [("model.init_from", str(source)), ("model.init_which", "2"), ("model.init_masks", "False")]
    _, server = start_of(config_of("fedavg", *settings))
    same(server.params, load_run(source, 2)[2].params)
    same(server.masks, masks.ones(server.params))


@pytest.mark.slow
def test_pruning_goes_on_from_the_mask_and_never_revives_a_weight(source, tmp_path):
    begin = ("model.init_from", str(source))
    config = config_of("fedsparsify_global", begin, ("pruning.sparsity", "0.9"))
    run_experiment(experiment_from_config(config), tmp_path, QUIET)
    before, after = load_run(source)[2].masks, load_run(tmp_path)[2].masks
    jax.tree.map(lambda old, new: np.testing.assert_array_equal(new, new & old), before, after)
    kept = sum(int(leaf.sum()) for leaf in jax.tree.leaves(after))
    size = sum(leaf.size for leaf in jax.tree.leaves(after))
    assert kept == size - round(0.9 * size)


def test_leaves_of_another_shape_are_new_and_named(source):
    deeper = [("model.hidden", "(128, 16)")]
    experiment, server = start_of(config_of("fedavg", ("model.init_from", str(source)), *deeper))
    _, cold = start_of(config_of("fedavg", *deeper))
    same(server.params["dense1"], load_run(source)[2].params["dense1"])
    same(
        (server.params["dense2"]["kernel"], server.params["dense3"]),
        (cold.params["dense2"]["kernel"], cold.params["dense3"]),
    )
    new = "dense2/bias (16,), there (10,); dense2/kernel (128, 16), there (128, 10); dense3/bias (10,), not there"
    assert "2 of 6 leaves" in experiment.remarks[0] and f"Newly initialised: {new}; " in experiment.remarks[0]
    assert bool(server.masks["dense2"]["kernel"].all()) and not bool(server.masks["dense1"]["kernel"].all())


@pytest.mark.slow
def test_a_warm_run_that_was_stopped_goes_on_bit_for_bit_and_only_from_the_same_weights(source, tmp_path):
    config = config_of("lotteryfl", ("model.init_from", str(source)), ("hooks.min_accuracy", "0.0"))
    experiment = experiment_from_config(config)
    run_experiment(experiment, tmp_path / "whole", QUIET)
    with pytest.raises(Killed):
        run_experiment(experiment, tmp_path / "parts", stop_after(1))
    moved = tmp_path / "moved"
    source.rename(moved)
    try:
        again = override(config, [("model.init_from", str(moved))])  # the same weights from elsewhere
        run_experiment(experiment_from_config(again), tmp_path / "parts", QUIET)
        earlier = override(again, [("model.init_which", "1")])
        with pytest.raises(UsageError, match="there model.init_sha256 is"):
            run_experiment(experiment_from_config(earlier), tmp_path / "parts", QUIET)
    finally:
        moved.rename(source)
    whole, parts = (load_run(tmp_path / name)[2] for name in ("whole", "parts"))
    assert state_digest(whole) == state_digest(parts)


def exported(run, file):
    file.write_bytes(export_run(run, "sparse", licence="CC BY 4.0").content)
    return file


def test_a_sparse_file_is_as_good_a_start_as_its_run(source, tmp_path):
    file, (_, network, last) = exported(source, tmp_path / "model.sparse"), load_run(source)
    experiment, server = start_of(config_of("fedavg", ("model.init_from", str(file))))
    from_run, _ = start_of(config_of("fedavg", ("model.init_from", str(source))))
    same((server.params, server.masks), (last.params, last.masks))
    inputs = experiment.federation.inputs[experiment.federation.test]
    same(experiment.model.apply(server.params, inputs), network.apply(last.params, inputs))
    assert experiment.config["model"]["init_sha256"] == from_run.config["model"]["init_sha256"]
    assert experiment.remarks[1] == f"Licence of {file}: CC BY 4.0."


@pytest.mark.parametrize("damage", [None, {}, {"network": []}, {"network": {"name": "mlp", "output_scale": "much"}}])
def test_a_sparse_file_whose_card_tells_too_little_is_refused(source, tmp_path, damage):
    model = read_sparse(exported(source, tmp_path / "model.sparse"))
    card = damage and {**model.card, **damage}
    (tmp_path / "other.sparse").write_bytes(sparse_bytes(model.params, model.masks, card))
    with pytest.raises(UsageError, match=r"The model card in .*other\.sparse does not tell what a start needs to know"):
        start_of(config_of("fedavg", ("model.init_from", str(tmp_path / "other.sparse"))))


NARROW = (2, 3, 2)


@pytest.fixture
def published(tmp_path):
    """A stand-in for the published file: its layout, in three blocks."""
    state = torch_writer.sfcn_state(NARROW)
    (tmp_path / "sfcn.p").write_bytes(torch_writer.stream(*torch_writer.state_of(state, "module.")))
    return tmp_path / "sfcn.p", params_of_sfcn(state)


def brains(path, tmp_path):
    config = override(load_config("configs/quickstart.py:smoke"), [("data.cache_dir", str(tmp_path / "cache"))])
    with config.unlocked():
        config.model = dict(name="brain_age_cnn", widths=NARROW, norm="none", init_from=str(path))
    return config


@pytest.mark.slow
def test_published_weights_are_folded_in_their_licence_is_said_and_the_head_is_new(published, tmp_path):
    path, expected = published
    experiment, server = start_of(brains(path, tmp_path))
    for name in ("conv1", "conv2", "top"):
        same(server.params[name], expected[name])
    assert server.params["head"]["kernel"].shape == (2, 1)
    assert "Newly initialised: head/bias (1,), there (40,); head/kernel (2, 1), there (2, 40)." in experiment.remarks[0]
    assert "under the MIT licence, copyright 2020 Han Peng" in experiment.remarks[1]
    printed = []
    run_experiment(experiment._replace(rounds=1), tmp_path / "run", printed.append)
    assert printed[:2] == list(experiment.remarks[:2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([("model.init_from", "nowhere")], r"model.init_from is 'nowhere', where nothing is; give a run folder"),
        ([("model.init_from", "README.md")], r"a file that nobody reads; .* a file that ends in .*\.pth"),
        ([("model.init_from", "configs")], r"holds no run"),
        ([("model.init_from", "RUN"), ("model.init_which", "first")], r"it must be best, last, or the number"),
        ([("model.init_from", "RUN"), ("model.init_which", "9")], r"holds no checkpoint of round 9"),
        ([("model.init_from", "RUN"), ("model.hidden", "(7,)"), ("model.classes", "11")], r"4 leaves none fits 'mlp'"),
        ([("model.init_form", "RUN")], r"model.init_form is not an option of 'mlp'"),
    ],
)
def test_what_cannot_be_begun_from_is_refused(settings, message, source):
    with pytest.raises(UsageError, match=message):
        start_of(config_of("fedavg", *[(key, text.replace("RUN", str(source))) for key, text in settings]))


@pytest.mark.slow
def test_the_scale_of_the_outputs_comes_with_the_weights_of_a_run_and_of_its_file(tmp_path):
    cache = ("data.cache_dir", str(tmp_path / "cache"))
    base = [cache, ("log.report", "False"), ("log.tensorboard", "False"), ("rounds", "1")]
    small = override(load_config("configs/quickstart.py:dense+smoke"), base)
    run_experiment(experiment_from_config(small), tmp_path / "run", QUIET)
    config, network, last = load_run(tmp_path / "run")
    for place in (tmp_path / "run", exported(tmp_path / "run", tmp_path / "model.sparse")):
        begin = ("model.init_from", str(place))
        experiment, server = start_of(override(small, [begin, ("seed", "7"), ("data.normalise", "brain")]))
        for key in ("output_mean", "output_scale"):
            assert experiment.config["model"][key] == config.model[key]
        scans = experiment.federation.inputs[experiment.federation.test]
        same(experiment.model.apply(server.params, scans), network.apply(last.params, scans))
        notes = [remark for remark in experiment.remarks if remark.startswith("Note: the weights were trained on")]
        assert [note.partition("otherwise: ")[2] for note in notes] == ["data.normalise was 'volume' and is 'brain'."]
        with pytest.raises(UsageError, match=r"model.output_scale is 5.0, but the weights of .* leave it out"):
            experiment_from_config(override(small, [begin, ("model.output_scale", "5.0")]))
