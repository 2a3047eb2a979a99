"""Stand-ins for the packages ``wandb`` and ``mlflow``, which keep what they are told in a JSON file.

They follow what the two do with a run that goes on: W&B gives the next step, MLflow the history of a metric.
"""

import json
import os
import types
from pathlib import Path


def load() -> dict:
    """What the services were told: ``{"wandb": {id: ...}, "mlflow": {id: ...}}``."""
    file = Path(os.environ["TRACKED_BY_STAND_INS"])
    return json.loads(file.read_text()) if file.exists() else {"wandb": {}, "mlflow": {}}


def change(service: str, id_: str, key: str, value) -> None:
    """Sets one thing that is known of a run, or adds to a list."""
    told = load()
    run = told[service].setdefault(id_, {"steps": [], "numbers": [], "ends": 0})
    run[key] = [*run[key], *value] if isinstance(value, list) else value
    Path(os.environ["TRACKED_BY_STAND_INS"]).write_text(json.dumps(told, default=str))


def wandb() -> types.ModuleType:
    """The package ``wandb``, as far as `runs.trackers` needs it."""
    module = types.ModuleType("wandb")

    def init(id=None, *, resume, name, dir, config):
        id_ = id or f"run{len(load()['wandb'])}"
        change("wandb", id_, "config", config)
        steps = load()["wandb"][id_]["steps"]

        def log(numbers, step):
            change("wandb", id_, "steps", [step])
            change("wandb", id_, "numbers", [numbers])

        finish = lambda: change("wandb", id_, "ends", load()["wandb"][id_]["ends"] + 1)
        return types.SimpleNamespace(id=id_, step=steps[-1] + 1 if steps else 0, log=log, finish=finish)

    module.init = init
    return module


def mlflow() -> types.ModuleType:
    """The package ``mlflow``, as far as `runs.trackers` needs it."""
    module, active = types.ModuleType("mlflow"), []

    class ActiveRun:
        def __init__(self, id_):
            self.info = types.SimpleNamespace(run_id=id_)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            id_ = active.pop()
            change("mlflow", id_, "ends", load()["mlflow"][id_]["ends"] + 1)

    def start_run(run_id=None, run_name=None):
        active.append(run_id or f"run{len(load()['mlflow'])}")
        change("mlflow", active[-1], "name", run_name)
        return ActiveRun(active[-1])

    def log_params(params):
        assert len(params) <= 100
        change("mlflow", active[-1], "params", {**load()["mlflow"][active[-1]].get("params", {}), **params})

    def log_metrics(numbers, step):
        change("mlflow", active[-1], "steps", [step])
        change("mlflow", active[-1], "numbers", [numbers])

    class MlflowClient:
        def get_metric_history(self, run_id, key):
            run = load()["mlflow"][run_id]
            return [types.SimpleNamespace(step=step) for step in run["steps"]]

    module.start_run, module.log_params, module.log_metrics = start_run, log_params, log_metrics
    module.MlflowClient = MlflowClient
    return module
