"""A run on scans of two channels, from files to predictions; one channel stays what it was."""

import jax
import numpy as np
import pytest

from fedsparse_jax.config import experiment_from_config, load_config, model_from_config
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.models import MODELS
from fedsparse_jax.runs import run_experiment
from fedsparse_jax.studies import evaluate_run
from tests.helpers.interrupted import QUIET
from tests.helpers.stand_ins import write_cat12


@pytest.fixture(scope="module")
def two(repository, tmp_path_factory):
    """The config of a run on grey and white matter."""
    root = tmp_path_factory.mktemp("cat12")
    config = load_config(f"{repository}/configs/cohorts/cat12.py:smoke")
    config.data.root, config.data.cache_dir = str(write_cat12(root / "in")), str(root / "cache")
    config.data.options.image, config.data.channels = "mwp1,mwp2", 2
    config.log.tensorboard, config.data.test_share = False, 0.4
    return config


@pytest.mark.slow
def test_two_channels_train_and_predict(two, tmp_path):
    experiment = experiment_from_config(two)
    assert experiment.federation.inputs.shape == (6, 16, 18, 16, 2)
    records = run_experiment(experiment, tmp_path / "run", QUIET)
    assert records[-1].finite and np.isfinite(records[-1].test["mae"])
    params = experiment.model.init(jax.random.key(0))
    assert params["conv1"]["kernel"].shape == (3, 3, 3, 2, 4)
    assert len(evaluate_run(tmp_path / "run", two.data.root).table.splitlines()) == 7
    with pytest.raises(
        UsageError, match="^The network takes data.channels=2, but here each head has 1 channel; give a"
    ):
        evaluate_run(tmp_path / "run", two.data.root, [("data.options.image", "mwp1")])


@pytest.mark.slow
def test_a_network_sees_both_channels(two):
    """Its answer depends on each channel, and not in the same way."""
    model, _ = model_from_config(two)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), model.init(jax.random.key(0)))
    scans = rng.normal(size=(1, 16, 18, 16, 2)).astype(np.float32)
    answers = [float(model.apply(params, scans[..., order])[0]) for order in ([0, 1], [1, 0], [0, 0], [1, 1])]
    assert len({round(answer, 3) for answer in answers}) == 4


@pytest.mark.parametrize("name", MODELS)
def test_every_network_takes_channels_and_one_is_the_default(name):
    shape = (32, 32, 32)
    options = dict(output_mean=60.0, output_scale=1.0) if name.endswith("_cnn") and name != "image_cnn" else {}
    shapes = lambda model: jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(model.init, jax.random.key(0)))
    one, also_one, three = (MODELS[name](shape, **more, **options) for more in ({}, {"channels": 1}, {"channels": 3}))
    assert shapes(one) == shapes(also_one) != shapes(three)
    example = jax.ShapeDtypeStruct((2, *shape, 3), np.float32)
    params = jax.eval_shape(three.init, jax.random.key(0))
    assert jax.eval_shape(three.apply, params, example).shape[0] == 2


def test_a_network_of_one_channel_is_refused(two, monkeypatch):
    monkeypatch.setitem(MODELS, "one", lambda shape, *, width=3: None)
    config = two.copy_and_resolve_references()
    with config.unlocked():
        config.model = dict(name="one")
    with pytest.raises(
        UsageError, match=r"^model.name is 'one', which takes one channel, but data.channels is 2; choose"
    ):
        model_from_config(config)


@pytest.mark.parametrize("count", [0, -1])
def test_no_channel_is_refused(two, count):
    config = two.copy_and_resolve_references()
    config.data.channels = count
    with pytest.raises(UsageError, match=rf"^data.channels is {count}: it must be at least 1"):
        experiment_from_config(config)
