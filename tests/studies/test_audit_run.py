"""The audit of a run folder: a run of seconds, opened, attacked and reported."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from fedsparse_jax.attacks import outsider_attacks, statistics
from fedsparse_jax.config import experiment_from_config, load_config, load_run
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.reporting import write_report
from fedsparse_jax.reporting.audit_tables import attack_rows
from fedsparse_jax.runs import read_records, run_experiment
from fedsparse_jax.studies import AuditOptions, audit_run, train_shadows
from fedsparse_jax.studies.audit_run import attackers, client_snapshots, global_snapshots, load_audited_run
from fedsparse_jax.studies.shadow_models import EVERYBODY, last_shadows
from tests.helpers.interrupted import QUIET

pytestmark = pytest.mark.slow  # runs of seconds, and many of them

CONFIGS = Path(__file__).parents[2] / "configs"
FEW = AuditOptions(attacks=("error_threshold", "white_box", "lira_offline"), draws=20)


def config(seed=1990, clients=2):
    made = load_config(f"{CONFIGS}/leakage_study.py:smoke+95")
    made.seed, made.log.tensorboard = seed, False
    with made.unlocked():
        made.partition = dict(name="uniform_iid", num_clients=clients)
    return made


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited") / "run"
    run_experiment(experiment_from_config(config()), folder, QUIET)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited") / "other"
    run_experiment(experiment_from_config(config(seed=7)), folder, QUIET)
    return folder


@pytest.fixture(scope="module")
def shadows(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited") / "shadows"
    train_shadows(load_run(workdir)[0], folder, 2, print_fn=QUIET)
    return folder


def test_all_pairs_are_reported_and_what_lacks_is_said(workdir):
    audit = audit_run(workdir, "client", options=FEW, print_fn=QUIET)
    assert list(audit["threats"]) == ["L1->L2", "L2->L1"]
    for findings in (*audit["threats"].values(), *audit["controls"]["untrained"].values()):
        assert set(findings) == {"error_threshold", "white_box", "lira_offline", "age_alone"}
        refusal = "lira_offline needs shadow models; this attacker has none."
        assert findings["lira_offline"]["refused"] == refusal
        auc = findings["error_threshold"]["everybody"]["auc"]
        assert 0 <= auc["low"] <= auc["value"] <= auc["high"] <= 1
        assert "11 non-members cannot" in findings["white_box"]["everybody"]["tpr"]["0.01"]["refused"]
    assert audit["gap"] == pytest.approx(audit["test_mae"] - audit["train_mae"])
    assert audit["test_mae"] == pytest.approx(read_records(workdir)[-1].test["mae"], rel=1e-5)
    page = write_report(workdir).read_text()
    assert "<h2>Privacy</h2>" in page and "L2-&gt;L1" in page and "lira_offline needs shadow" in page
    assert (workdir / "figures/attack_roc_client.png").exists()


def test_the_server_sees_what_the_client_sent(workdir):
    run = load_audited_run(workdir)
    assert [int(state.round) for state in run.states] == [1, 2, 3]
    sent = [client_snapshots(run, victim, 1)[-1] for victim in (0, 1)]
    sizes = [len(rows) for rows in run.data.members]
    state = run.states[-1]  # the mean of what was sent, pruned by the server
    leaves = [jax.tree.leaves(tree) for tree in (sent[0].params, sent[1].params, state.params, state.masks)]
    for first, second, merged, mask in zip(*leaves, strict=True):
        mean = (sizes[0] * np.asarray(first) + sizes[1] * np.asarray(second)) / sum(sizes)
        remains = np.asarray(mask)
        np.testing.assert_allclose(np.asarray(merged)[remains], mean[remains], rtol=1e-3, atol=1e-5)
    assert any(not np.array_equal(first, second) for first, second in zip(*leaves[:2], strict=True))
    options = FEW._replace(attacks=("sparsity_aware",))
    audit = audit_run(workdir, "server", options=options, print_fn=QUIET)
    assert list(audit["threats"]) == ["server->L1", "server->L2"]
    threats = json.loads((workdir / "attack.json").read_text())
    assert {"client", "server"} <= threats.keys()  # side by side


def test_the_server_sees_nothing_of_a_client_in_a_round_that_it_dropped_out_of(tmp_path):
    made = config()
    made.rounds, made.faults.dropout = 4, 0.5
    records = run_experiment(experiment_from_config(made), tmp_path / "run", QUIET)
    run = load_audited_run(tmp_path / "run")
    for victim in (0, 1):
        arrived = [victim not in record.left_out.get("dropped_out", ()) for record in records[1:]]
        assert not all(arrived) and any(arrived)
        assert len(client_snapshots(run, victim, 4)) == sum(arrived)


def test_each_attacker_sees_what_reaches_him(workdir):
    """The table of docs/explanation/threats.md: somebody outside has the final model and none before it."""
    run = load_audited_run(workdir)
    [(_, final)] = attackers(run, "outsider", AuditOptions())
    assert len(final) == 1 and final[0].before is None
    for _, seen in attackers(run, "client", AuditOptions(models=2)):  # no third one, not even as an earlier model
        assert len(seen) == 2 and seen[0].before is None
        np.testing.assert_array_equal(seen[1].before["head"]["kernel"], seen[0].params["head"]["kernel"])
    for _, seen in attackers(run, "server", AuditOptions(models=2)):
        assert len(seen) == 2 and all(model.before is not None for model in seen)  # what the server itself had sent


def test_the_server_sees_what_lossy_messages_leave_of_an_update(tmp_path):
    made = config()
    made.communication.update(mode="transmit", dtype="int8", feedback=True)
    made.pruning.placement = "none"
    run_experiment(experiment_from_config(made), tmp_path / "run", QUIET)
    run = load_audited_run(tmp_path / "run")
    sent = [client_snapshots(run, victim, 1)[-1].params for victim in (0, 1)]
    sizes = [len(rows) for rows in run.data.members]
    for first, second, merged in zip(*map(jax.tree.leaves, (*sent, run.states[-1].params)), strict=True):
        mean = (sizes[0] * np.asarray(first) + sizes[1] * np.asarray(second)) / sum(sizes)
        np.testing.assert_allclose(np.asarray(merged), mean, atol=1e-5 * np.abs(mean).max())


def test_shadows_of_another_run_are_refused(workdir, shadows, tmp_path):
    """By what they hold, and not by the name of their folder."""
    sparser = load_run(workdir)[0]
    sparser.pruning.sparsity = 0.5
    with pytest.raises(UsageError, match=r"shadow-0 holds another experiment: there pruning.*sparsity is"):
        train_shadows(sparser, shadows, 2, print_fn=QUIET)
    data = load_audited_run(workdir).data
    with pytest.raises(UsageError, match=r"there pruning.* train shadows of this run with scripts/train_shadows.py"):
        last_shadows(shadows, sparser, data)
    with pytest.raises(UsageError, match=r"was trained on other people \(of another age: "):
        last_shadows(shadows, load_run(workdir)[0], data._replace(targets=data.targets + 1))
    same_seed = load_run(workdir)[0]
    same_seed.seed += 1
    with pytest.raises(UsageError, match=f"shadow-0 has the seed of the run, {same_seed.seed}"):
        last_shadows(shadows, same_seed, data)


def test_no_shadow_begins_where_the_target_did(workdir, shadows):
    seed = load_run(workdir)[0].seed
    assert [load_run(shadows / f"shadow-{index}")[0].seed for index in range(2)] == [seed + 1, seed + 2]


def test_global_models_know_the_one_before(workdir):
    states = load_audited_run(workdir).states
    models = global_snapshots(states, 2)
    np.testing.assert_array_equal(models[1].before["head"]["kernel"], models[0].params["head"]["kernel"])
    assert len(global_snapshots(states, 9)) == 3 and global_snapshots(states[-1:], 9)[0].before is None


def test_shadows_and_another_seed(workdir, other, shadows):
    options = FEW._replace(attacks=("error_threshold", "rmia"))
    audit = audit_run(workdir, shadows=shadows, other=other, options=options, print_fn=QUIET)
    assert audit["threats"]["outsider"]["rmia"]["refused"] == ""
    assert list(audit["controls"]) == ["untrained", "other seed"] and audit["shadows"] == 2
    assert attack_rows(audit)[0][0] == "error_threshold"
    assert "[" in attack_rows(audit, "other seed")[0][1]


def test_shadows_are_halves_and_not_trained_twice(workdir, shadows):
    data = experiment_from_config(config()).federation
    known = last_shadows(shadows, load_run(workdir)[0], data)
    assert known.inside.shape == known.predictions.shape == (2, 40)
    assert (known.inside[0] != known.inside[1]).all() and known.inside[0].sum() == 20
    before = (shadows / "shadow-0" / EVERYBODY).stat().st_mtime_ns
    lines = []
    train_shadows(load_run(workdir)[0], shadows, 2, print_fn=lines.append)
    assert lines == ["shadow 1 of 2", "shadow 2 of 2"]
    assert (shadows / "shadow-0" / EVERYBODY).stat().st_mtime_ns == before
    _, network, state = load_run(shadows / "shadow-1")
    rows = np.flatnonzero(known.inside[1])[:3]
    again = network.apply(state.params, data.inputs[rows])
    np.testing.assert_allclose(known.predictions[1, rows], again, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(threat="spy"), "no threat 'spy'"),
        (dict(options=FEW._replace(attacks=("magic",))), "no attack 'magic'"),
        (dict(options=FEW._replace(known=1.0)), "known is 1.0"),
        (dict(options=FEW._replace(models=0)), "models is 0"),
    ],
)
def test_bad_input(workdir, options, message):
    with pytest.raises(UsageError, match=message):
        audit_run(workdir, print_fn=QUIET, **options)


def test_folders_that_cannot_be_audited(workdir, shadows, tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        audit_run(tmp_path, print_fn=QUIET)
    with pytest.raises(UsageError, match="holds a shadow"):
        audit_run(shadows / "shadow-0", print_fn=QUIET)
    with pytest.raises(UsageError, match="holds no finished shadows"):
        audit_run(workdir, shadows=tmp_path, print_fn=QUIET)
    with pytest.raises(UsageError, match="same test set"):
        audit_run(workdir, other=workdir, print_fn=QUIET)


def test_a_run_can_audit_itself(workdir, tmp_path):
    made = config()
    made.log.audit_every, made.log.audit_attacks = 2, ("error_threshold", "white_box", "lira_online")
    records = run_experiment(experiment_from_config(made), tmp_path / "run", QUIET)
    logged = {"train_mae", "membership_auc_error_threshold", "membership_auc_white_box"}  # LiRA lacks shadows
    assert [set(record.leakage) for record in records] == [set(), logged, set()]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [logged & line.keys() for line in lines] == [set(), logged, set()]
    assert records[-1].test["mae"] == read_records(workdir)[-1].test["mae"]  # looking changes nothing
    run = load_audited_run(tmp_path / "run")
    data, state = run.data, run.states[1]
    errors = np.abs(np.asarray(run.runner.apply(state.params, data.inputs)) - data.targets)
    train_mae = errors[np.concatenate(data.members)].mean()
    assert records[1].leakage["train_mae"] == pytest.approx(train_mae, rel=1e-4)
    threat = outsider_attacks(data.members, data.test)
    auc = statistics.auc(*statistics.split_scores(-errors[threat.scored], threat.inside))
    assert records[1].leakage["membership_auc_error_threshold"] == pytest.approx(auc)


def test_a_run_that_cannot_audit_itself_says_why():
    images, scans = load_config(f"{CONFIGS}/methods/fedavg.py:digits"), config()
    for made in (images, scans):
        made.log.audit_every = 1
        assert experiment_from_config(made).leakage.every == 1
        made.log.audit_attacks = ("magic",)
        with pytest.raises(UsageError, match=r"log.audit_attacks is 'magic'"):
            experiment_from_config(made)


# --- validation ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    made, folder = config(), tmp_path_factory.mktemp("audited") / "validated"
    made.data.validation_share = 0.3
    run_experiment(experiment_from_config(made), folder, QUIET)
    return folder


def test_who_validates_is_neither_a_member_nor_another(validated):
    run = load_audited_run(validated)
    validating = run.data.validation_rows
    for threat in ("outsider", "client", "server"):
        for one, _ in attackers(run, threat, FEW):
            assert len(one.scored) and not set(validating) & {*one.scored, *one.members, *one.outsiders}


def test_an_audit_of_a_round_goes_no_further(validated):
    run = load_audited_run(validated, round_=2)
    assert [int(state.round) for state in run.states] == [1, 2]
    assert audit_run(validated, round_=2, options=FEW, print_fn=QUIET)["round"] == 2
    with pytest.raises(UsageError, match="holds no checkpoint of round 9"):
        load_audited_run(validated, round_=9)


def test_shadows_of_a_run_with_validation_train_all_of_their_half(validated, tmp_path):
    target = load_run(validated)[0]
    train_shadows(target, tmp_path, 2, run=validated, print_fn=QUIET)
    data = load_audited_run(validated).data
    known = last_shadows(tmp_path, target, data)
    assert known.inside.sum(0).tolist() == [1] * len(data.people)  # everybody is in exactly half of them
    for index in range(2):
        shadow = load_run(tmp_path / f"shadow-{index}")[0]
        assert shadow.data.validation_share == 0
