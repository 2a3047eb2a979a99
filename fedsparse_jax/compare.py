"""Several configs over several seeds, and one table: the evidence behind every number in the docs.

Each pair of config and seed is an ordinary run in a folder of its own, so that a comparison that was stopped
goes on where it was.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedsparse_jax import build, experiment, figures

HEADER = (
    "config",
    "seeds",
    "sparsity",
    "test MAE (y)",
    "below predict-the-mean",
    "against the first row",
    "weights exchanged",
)


Results = dict[str, list[list[dict]]]  # for each config, for each seed, the log of its rounds


def run(specs: list[str], seeds: list[int], workdir: Path, say: Callable[[str], None] = print) -> Results:
    """Runs every config with every seed, each in a folder of its own under ``workdir``."""
    results: Results = {spec: [] for spec in specs}
    for seed in seeds:
        for spec in specs:
            config = build.load(spec)
            config.seed = seed
            name = f"{Path(spec.partition(':')[0]).stem}-{spec.partition(':')[2] or 'default'}-seed{seed}"
            say(f"{spec}, seed {seed}")
            results[spec].append(experiment.run(build.experiment(config), workdir / name, say))
    return results


def picture(results: Results) -> bytes:
    """MAE by round and by weights exchanged, the mean over the seeds, as PNG."""
    runs = [(str(method_of(spec)), average(logs)) for spec, logs in results.items()]
    return figures.render(figures.compare_runs(runs), "png")


def method_of(spec: str) -> str:
    """The method that a config says it is."""
    return build.load(spec).method


def average(logs: list[list[dict]]) -> list[dict]:
    """The mean over the seeds of what a picture shows, round by round."""
    keys = ("round", "test_mae", "predict_mean_mae", "params_up_total", "params_down_total")
    return [
        {key: float(np.mean([entry[key] for entry in same])) for key in keys}
        for same in zip(*logs, strict=True)
    ]


def table(results: Results) -> str:
    """Mean and SD over the seeds at the last round, one row a config, as Markdown."""
    rows = [HEADER, ("---",) * len(HEADER)]
    first = None
    for spec, runs in results.items():
        last = [records[-1] for records in runs]
        mae = np.array([record["test_mae"] for record in last])
        mean_mae = np.mean([record["predict_mean_mae"] for record in last])
        exchanged = np.mean([r["params_up_total"] + r["params_down_total"] for r in last])
        first = mae.mean() if first is None else first
        rows.append(
            (
                f"`{spec}`",
                str(len(runs)),
                f"{np.mean([record['sparsity'] for record in last]):.3f}",
                f"{mae.mean():.2f} ± {mae.std(ddof=1) if len(mae) > 1 else 0:.2f}",
                f"{1 - mae.mean() / mean_mae:.1%} of {mean_mae:.2f}",
                f"{mae.mean() / first - 1:+.1%}",
                f"{exchanged / 1e6:.2f} M",
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
