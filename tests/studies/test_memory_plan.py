"""Planned memory: what is surely needed is counted."""

from fedsparse_jax.config import load_config, override
from fedsparse_jax.studies.memory_plan import MemoryPlan, plan_local_steps, plan_table

SMALL = {"data.shape": "(8,8,8)", "execution.steps_per_chunk": "3", "client.batch_size": "4"}


def small(method="fedsparsify_global:smoke", **settings):
    name, _, form = method.partition(":")
    config = load_config(f"configs/methods/{name}.py:{form}")
    return override(config, {**SMALL, **settings}.items())


def test_models_and_batches_by_hand(repository, monkeypatch):
    monkeypatch.chdir(repository)
    one, all_at_once = (plan_local_steps(small(**{"execution.client_map": way})) for way in ("scan", "vmap"))
    # Eight clients of 3 steps of 4 scans of 512 voxels: float32, with a target and a flag for each scan.
    batches = 8 * 3 * 4 * (512 * 4 + 4 + 1)
    # 4 and 8 channels: 27 * 4 + 4, 27 * 4 * 8 + 8, and 8 * 8 + 1 of the head; float32, and a byte for each mask.
    models = 8 * (27 * 4 + 4 + 27 * 4 * 8 + 8 + 8 * 8 + 1) * (4 + 1)
    for planned in (one, all_at_once):
        assert batches + models <= planned.arguments <= 1.1 * (batches + models)
    assert all_at_once.working > 2 * one.working > 0


def test_a_table_says_which_cards_are_large_enough():
    table = plan_table([("all at once", "float32", MemoryPlan(int(1.25e9), int(20e9)))])
    assert "| all at once | float32 | 1.25 | 20.00 | 21.25 | no | yes | yes |" in table


def test_a_method_that_looks_at_data_first_is_planned_too(repository, monkeypatch):
    monkeypatch.chdir(repository)
    plain, looking = (plan_local_steps(small(method)) for method in ("fedavg:smoke", "lotteryfl:smoke"))
    assert looking.arguments > plain.arguments  # every client has tickets of its own
