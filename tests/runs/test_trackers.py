"""Trackers are told of every round once and in order, also where a run was stopped, and no run ends for them."""

import contextlib
import sys

import pytest

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.runs import run_experiment
from fedsparse_jax.runs.trackers import TRACKERS, find_tracker
from tests.helpers import toy_federation, tracking_services
from tests.helpers.interrupted import QUIET, Killed, stop_after


def tracked_by(tracker, rounds=3):
    experiment = toy_federation.experiment(rounds)
    return experiment._replace(output=experiment.output._replace(tracker=tracker))


class Kept:
    """A tracker that keeps what it is told, a list for each time that the run was begun."""

    def __init__(self, fails_in=None):
        self.rounds, self.numbers, self.ends, self.fails_in = [], {}, 0, fails_in

    @contextlib.contextmanager
    def __call__(self, config, workdir):
        self.config, self.workdir = config, workdir
        self.rounds.append([])

        def tell(round_, numbers):
            if round_ == self.fails_in:
                raise ConnectionError("no network")
            self.rounds[-1].append(round_)
            self.numbers[round_] = numbers

        yield tell
        self.ends += 1


@pytest.fixture
def services(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKED_BY_STAND_INS", str(tmp_path / "told.json"))
    for name in TRACKERS:
        monkeypatch.setitem(sys.modules, name, getattr(tracking_services, name)())


def test_a_function_is_told_the_config_and_the_numbers_of_every_round(tmp_path):
    kept, run = Kept(), tmp_path / "run"
    records = run_experiment(tracked_by(kept), run, print_fn=QUIET)
    assert kept.rounds == [[1, 2, 3]] and kept.ends == 1 and kept.workdir == run
    assert kept.config["client"] == {"rate": 1e-2}
    for record in records:
        numbers = kept.numbers[record.round]
        assert numbers["test_mae"] == record.test["mae"] and numbers["sparsity"] == record.sparsity
        assert numbers["density/conv1/kernel"] == record.density["conv1/kernel"] and "cohort" not in numbers


def test_a_run_that_goes_on_tells_its_rounds_again_before_the_new_ones(tmp_path):
    kept = Kept()
    with pytest.raises(Killed):
        run_experiment(tracked_by(kept), tmp_path, print_fn=stop_after(2))
    assert kept.ends == 1 and kept.rounds == [[1, 2]]
    run_experiment(tracked_by(kept), tmp_path, print_fn=QUIET)
    assert kept.rounds[1:] == [[1, 2, 3]]


@pytest.mark.parametrize("service", TRACKERS)
def test_services_have_one_run_a_folder_and_every_round_once(service, services, tmp_path):
    run = tmp_path / "mine"
    with pytest.raises(Killed):
        run_experiment(tracked_by(find_tracker(service)), run, print_fn=stop_after(1))
    for _ in range(2):  # to its end, and once more
        run_experiment(tracked_by(find_tracker(service)), run, print_fn=QUIET)
    ((_, told),) = tracking_services.load()[service].items()
    assert told["steps"] == [1, 2, 3] and told["ends"] == 3
    assert all(numbers["test_mae"] > 0 for numbers in told["numbers"])
    config = {"wandb": lambda: told["config"]["client"]["rate"], "mlflow": lambda: told["params"]["client.rate"]}
    assert config[service]() == 1e-2


def test_a_tracker_that_fails_is_told_no_more_and_the_run_goes_on(tmp_path):
    kept, said = Kept(fails_in=2), []
    records = run_experiment(tracked_by(kept), tmp_path, print_fn=said.append)
    assert [record.round for record in records] == [1, 2, 3] and kept.rounds == [[1]]
    notes = [line for line in said if "tracker" in line]
    assert len(notes) == 1 and "failed in round 2 (ConnectionError: no network); the run goes on" in notes[0]
    kept.fails_in = None
    run_experiment(tracked_by(kept), tmp_path, print_fn=QUIET)  # as the note says
    assert kept.rounds == [[1], [1, 2, 3]]


def test_a_tracker_that_fails_at_its_end_leaves_a_whole_run(tmp_path):
    @contextlib.contextmanager
    def tracker(config, workdir):
        yield lambda *_: None
        raise ConnectionError("no network")

    said = []
    run_experiment(tracked_by(tracker, rounds=1), tmp_path, print_fn=said.append)
    assert (tmp_path / "predictions.tsv").exists() and "failed at its end" in "".join(said)


def test_a_tracker_that_cannot_begin_is_said_before_training(tmp_path):
    with pytest.raises(UsageError, match=r"log\.tracker cannot begin \(TypeError: .*; mend it, or set log\.tracker"):
        run_experiment(tracked_by(lambda config: None), tmp_path, print_fn=QUIET)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorboard", r"tracker is 'tensorboard': it must be one of wandb, mlflow, or FILE\.py:FUNCTION"),
        ("nowhere.py:tell", r"it must be one of"),
        ("FILE:other", r"mine\.py has no function 'other'"),
        ("fedsparse_jax.no_module:tell", r"fedsparse_jax\.no_module cannot be read \(ModuleNotFoundError"),
        ("wandb", r"tracker is 'wandb': the package wandb is missing: pip install wandb"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused(name, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    (tmp_path / "mine.py").write_text("def tell(config, workdir):\n    pass\n")
    name = name.replace("FILE", str(tmp_path / "mine.py"))
    with pytest.raises(ArgumentError, match=message):
        find_tracker(name)
    assert find_tracker("") is None and find_tracker(f"{tmp_path / 'mine.py'}:tell").__name__ == "tell"
