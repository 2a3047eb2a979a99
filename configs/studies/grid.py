"""What does each sparsity cost, by method and environment? The quickstart's network and phantom, 40 rounds each.

python scripts/study.py --study=configs/studies/grid.py --workdir=runs/grid

Seven methods at 80, 90, 95, 98 and 99 %, beside dense training, centralized and in four federations: 155 cells of three
seeds, which is a day or more on two idle cores. The study goes on where it stopped. Behind the file name stand parts of
it, joined by ``+``: environments (``centralized``, ``uniform_iid``, ``skewed_iid``, ``uniform_noniid``,
``skewed_noniid``) and sparsities in percent (``95``); ``smoke`` asks for two cells of seconds.
"""

from fedsparse_jax.config.presets import parse_forms
from fedsparse_jax.studies import GridCell, Study

ENVIRONMENTS = {
    "centralized": ("centralized", ["partition.num_clients=1"]),
    "uniform_iid": ("uniform, IID", ["partition.name=uniform_iid"]),
    "skewed_iid": ("skewed, IID", ["partition.name=skewed_iid"]),
    "uniform_noniid": ("uniform, non-IID", ["partition.name=uniform_noniid"]),
    "skewed_noniid": ("skewed, non-IID", ["partition.name=skewed_noniid"]),
}
PACED = ["pruning.schedule.name=paced"]
TRAINED_HEAD = ["model.zero_head=False"]  # criteria that look before any training are blind to what a zero head hides
METHODS = {
    "Global, paced": ("fedsparsify_global", PACED),
    "Local, paced": ("fedsparsify_local", PACED),
    "one shot, tuned": ("one_shot:tuned", ["pruning.schedule.at=16"]),
    "Random, paced": ("random_pruning", PACED),
    "SNIP": ("snip", TRAINED_HEAD),
    "FedDST": ("feddst", TRAINED_HEAD),
}
SPARSITIES, SEEDS = ("80", "90", "95", "98", "99"), (1, 2, 3)
MEASURES = ("simple", "errors", "gap", "saliency", "mask")


def get_study(forms=""):
    asked, number = parse_forms(forms, "smoke", *ENVIRONMENTS, percent=True)
    percents = SPARSITIES if number is None else (f"{number:g}",)
    environments, methods, size = sorted(asked & ENVIRONMENTS.keys(), key=list(ENVIRONMENTS).index), METHODS, "coarse"
    if "smoke" in asked:
        environments, percents, size = ["uniform_noniid"], ("95",), "coarse+smoke"
        methods = {name: METHODS[name] for name in ("Local, paced",)}
    cells = []
    for environment in environments or ENVIRONMENTS:
        title, settings = ENVIRONMENTS[environment]
        labels = lambda method, percent: {"environment": title, "method": method, "sparsity": f"{percent} %"}  # noqa: B023
        cells.append(GridCell(labels("dense", "0"), f"configs/methods/fedavg.py:{size}", settings, SEEDS))
        for method, (spec, own) in methods.items():
            file, _, form = spec.partition(":")
            for percent in percents:
                name = f"configs/methods/{file}.py:{'+'.join(filter(None, (size, form, percent)))}"
                cells.append(GridCell(labels(method, percent), name, [*settings, *own], SEEDS))
    return Study("Methods, sparsities and environments", cells, {"method": "dense", "sparsity": "0 %"}, MEASURES)
