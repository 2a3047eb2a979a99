"""The audit of a run folder: a run of seconds, opened, attacked and reported."""

import json

import jax
import numpy as np
import pytest

from fedsparse_jax.attacks import statistics, threats
from fedsparse_jax.config import build
from fedsparse_jax.core.types import UsageError
from fedsparse_jax.reporting import audit_tables, report
from fedsparse_jax.runs import loop
from fedsparse_jax.studies import audit_run, shadow_models

FEW = audit_run.Options(attacks=("error_threshold", "white_box", "lira_offline"), draws=20)
QUIET = lambda _: None


def config(seed=1990, clients=2):
    made = build.load("configs/audit.py:smoke+95")
    made.seed, made.log.tensorboard = seed, False
    with made.unlocked():
        made.partition = dict(name="uniform_iid", num_clients=clients)
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("audited") / "run"
    loop.run(build.experiment(config()), workdir, QUIET)
    return workdir


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("audited") / "other"
    loop.run(build.experiment(config(seed=7)), workdir, QUIET)
    return workdir


@pytest.fixture(scope="module")
def family(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited") / "shadows"
    shadow_models.train(build.trained(run)[0], folder, 2, say=QUIET)
    return folder


def test_all_pairs_are_reported_and_what_lacks_is_said(run):
    found = audit_run.attack(run, "client", options=FEW, say=QUIET)
    assert list(found["threats"]) == ["L1->L2", "L2->L1"]
    for findings in (*found["threats"].values(), *found["controls"]["untrained"].values()):
        assert set(findings) == {"error_threshold", "white_box", "lira_offline", "age_alone"}
        assert (
            findings["lira_offline"]["refused"] == "lira_offline needs shadow models; this attacker has none."
        )
        auc = findings["error_threshold"]["everybody"]["auc"]
        assert 0 <= auc["low"] <= auc["value"] <= auc["high"] <= 1
        assert "10 non-members cannot" in findings["white_box"]["everybody"]["tpr"]["0.01"]["refused"]
    assert found["gap"] == pytest.approx(found["test_mae"] - found["train_mae"])
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert found["test_mae"] == pytest.approx(last["test_mae"], rel=1e-5)
    page = report.write(run).read_text()
    assert "<h2>Privacy</h2>" in page and "L2-&gt;L1" in page and "lira_offline needs shadow" in page
    assert (run / "figures/attack_roc_client.png").exists()


def test_the_server_sees_what_the_client_sent(run):
    opened = audit_run.open_run(run)
    assert [int(state.round) for state in opened.states] == [1, 2, 3]
    sent = [audit_run.updates(opened, victim, 1)[-1] for victim in (0, 1)]
    sizes = [len(held) for held in opened.experiment.data.members]
    state = opened.states[-1]  # the mean of what was sent, pruned by the server
    leaves = [jax.tree.leaves(one) for one in (sent[0].params, sent[1].params, state.params, state.masks)]
    for first, second, merged, mask in zip(*leaves, strict=True):
        mean = (sizes[0] * np.asarray(first) + sizes[1] * np.asarray(second)) / sum(sizes)
        kept = np.asarray(mask)
        np.testing.assert_allclose(np.asarray(merged)[kept], mean[kept], rtol=1e-3, atol=1e-5)
    assert any(not np.array_equal(first, second) for first, second in zip(*leaves[:2], strict=True))
    found = audit_run.attack(run, "server", options=FEW._replace(attacks=("sparsity_aware",)), say=QUIET)
    assert list(found["threats"]) == ["server->L1", "server->L2"]
    assert {"client", "server"} <= json.loads((run / "attack.json").read_text()).keys()  # side by side


def test_community_models_know_the_one_before(run):
    states = audit_run.open_run(run).states
    models = audit_run.community(states, 2)
    np.testing.assert_array_equal(models[1].before["head"]["kernel"], models[0].params["head"]["kernel"])
    assert len(audit_run.community(states, 9)) == 2 and audit_run.community(states[-1:], 9)[0].before is None


def test_shadows_and_another_seed(run, other, family):
    options = FEW._replace(attacks=("error_threshold", "rmia"))
    found = audit_run.attack(run, shadows=family, other=other, options=options, say=QUIET)
    assert found["threats"]["outsider"]["rmia"]["refused"] == ""
    assert list(found["controls"]) == ["untrained", "other seed"] and found["shadows"] == 2
    assert (
        audit_tables.rows(found)[0][0] == "error_threshold"
        and "[" in audit_tables.rows(found, "other seed")[0][1]
    )


def test_shadows_are_halves_and_not_trained_twice(run, family):
    data = build.experiment(config()).data
    held = shadow_models.last(family, data.targets)
    assert held.inside.shape == held.predictions.shape == (2, 40)
    assert (held.inside[0] != held.inside[1]).all() and held.inside[0].sum() == 20
    before = (family / "shadow-0" / shadow_models.EVERYBODY).stat().st_mtime_ns
    said = []
    shadow_models.train(build.trained(run)[0], family, 2, say=said.append)
    assert said == ["shadow 1 of 2", "shadow 2 of 2"]
    assert (family / "shadow-0" / shadow_models.EVERYBODY).stat().st_mtime_ns == before
    state = build.trained(family / "shadow-1")[2]
    rows = np.flatnonzero(held.inside[1])[:3]
    network = build.trained(family / "shadow-1")[1]
    again = network.apply(state.params, data.inputs[rows])
    np.testing.assert_allclose(held.predictions[1, rows], again, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(threat="spy"), "no threat 'spy'"),
        (dict(options=FEW._replace(attacks=("magic",))), "no attack 'magic'"),
        (dict(options=FEW._replace(known=1.0)), "known is 1.0"),
        (dict(options=FEW._replace(models=0)), "models is 0"),
    ],
)
def test_bad_input(run, options, message):
    with pytest.raises(UsageError, match=message):
        audit_run.attack(run, say=QUIET, **options)


def test_folders_that_cannot_be_audited(run, family, tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        audit_run.attack(tmp_path, say=QUIET)
    with pytest.raises(UsageError, match="holds a shadow"):
        audit_run.attack(family / "shadow-0", say=QUIET)
    with pytest.raises(UsageError, match="holds no finished shadows"):
        audit_run.attack(run, shadows=tmp_path, say=QUIET)
    with pytest.raises(UsageError, match="same test set"):
        audit_run.attack(run, other=run, say=QUIET)


def test_a_run_can_audit_itself(run, tmp_path):
    made = config()
    made.log.audit_every, made.log.audit_attacks = 2, ("error_threshold", "white_box", "lira_online")
    records = loop.run(build.experiment(made), tmp_path / "run", QUIET)
    logged = {"train_mae", "membership_auc_error_threshold", "membership_auc_white_box"}  # LiRA lacks shadows
    found = [logged & record.keys() for record in records]
    assert found == [set(), logged, set()] and "membership_auc_lira_online" not in records[1]
    plain = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["test_mae"] == plain[-1]["test_mae"]  # looking changes nothing
    opened = audit_run.open_run(tmp_path / "run")
    data, state = opened.experiment.data, opened.states[1]
    errors = np.abs(np.asarray(opened.compiled.apply(state.params, data.inputs)) - data.targets)
    assert records[1]["train_mae"] == pytest.approx(errors[np.concatenate(data.members)].mean(), rel=1e-4)
    threat = threats.outsider(data.members, data.test)
    auc = statistics.auc(*statistics.split(-errors[threat.scored], threat.inside))
    assert records[1]["membership_auc_error_threshold"] == pytest.approx(auc)


def test_a_run_that_cannot_audit_itself_says_why():
    images, unknown = build.load("configs/fedavg.py:digits"), config()
    images.log.audit_every = unknown.log.audit_every = 1
    unknown.log.audit_attacks = ("magic",)
    for made, message in ((images, "which is for regressions"), (unknown, "log.audit_attacks has 'magic'")):
        with pytest.raises(UsageError, match=message):
            build.experiment(made)
