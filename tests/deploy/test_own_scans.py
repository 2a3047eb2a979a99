"""A site's experiment is made of its own folder, and of what the config must then decide."""

import numpy as np
import pytest

from fedsparse_jax.config import load_config, override
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.deploy import describe_experiment, server_experiment, site_experiment

NUMBERS = [("model.output_mean", "62.0"), ("model.output_scale", "10.0")]


def config(tmp_path, people, *settings):
    own = [("data.cache_dir", str(tmp_path)), ("data.options.people", str(people)), ("partition.num_clients", "3")]
    return override(load_config("configs/quickstart.py:smoke"), [*own, *settings])


def test_all_scans_of_a_folder_are_the_sites_and_the_server_tests_on_all_of_its_own(tmp_path):
    site = site_experiment(config(tmp_path / "site", 5, *NUMBERS), 1)
    server = server_experiment(config(tmp_path / "server", 4, *NUMBERS))
    assert [len(rows) for rows in site.federation.members] == [0, 5, 0] and len(site.federation.test) == 0
    assert [len(rows) for rows in server.federation.members] == [0, 0, 0] and len(server.federation.test) == 4
    assert np.isfinite(site.federation.targets).all() and site.messages.mode == "transmit"
    facts = describe_experiment(site)
    assert facts == describe_experiment(server)
    assert facts["normalisation"] == site.config["data"]["normalise"] and facts["clients"] == 3


@pytest.mark.parametrize(
    ("settings", "site", "sentence"),
    [
        (NUMBERS[:1], 0, "model.output_scale is not set"),
        (NUMBERS, 3, "There is no site 3"),
        (
            [*NUMBERS, ("partition.name", "site"), ("partition.num_clients", "auto")],
            0,
            "partition.num_clients is 'auto'",
        ),
        ([*NUMBERS, ("task", "classification"), ("data.label", "sex")], 0, "data.classes is empty"),
    ],
)
def test_what_all_sites_together_would_decide_must_stand_in_the_config(settings, site, sentence, tmp_path):
    with pytest.raises(UsageError, match=sentence):
        site_experiment(config(tmp_path, 5, *settings), site)
