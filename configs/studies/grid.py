"""What does each sparsity cost, by method and environment? The quickstart's network and phantom, 40 rounds each.

python scripts/study.py --study=configs/studies/grid.py:headline --workdir=runs/headline

The form ``headline`` asks whether pruning to 95 % costs accuracy: dense training and FedSparsify-Global, centralized
and in four federations, five seeds each. These are 50 runs of one and a half to four minutes on two idle cores. The
form ``scores`` asks whether weights are better scored by LAMP than by magnitude, at 95 and 98 %, with three seeds.
Without them eight methods are trained at 80, 90, 95, 98 and 99 %, three seeds each: 540 runs, which is a day or more.
A study goes on where it stopped, and takes from the file of another one the runs that both have (``--known``).

Behind the file name forms may stand, joined by ``+``: ``headline``; ``scores``; ``dense``, no pruning; environments
(``centralized``, ``uniform_iid``, ``skewed_iid``, ``uniform_noniid``, ``skewed_noniid``); a sparsity in percent;
``smoke``, two cells of seconds.
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
PACED = ["pruning.schedule.name=paced"]  # one setting for all environments
TRAINED_HEAD = ["model.zero_head=False"]  # criteria that look before any training see nothing behind a head of zeros
# FedDST's densities by layer (ERK) leave a head of one output nearly whole, and kernels a thousandth of their weights.
LAYERS_ALIKE = ["pruning.scope=per_layer"]
METHODS = {
    "Global, paced": ("fedsparsify_global", "", PACED),
    "Global by LAMP, paced": ("fedsparsify_global", "", [*PACED, "pruning.criterion=lamp"]),
    "Local, paced": ("fedsparsify_local", "", PACED),
    "one shot, tuned": ("one_shot", "tuned", ["pruning.schedule.at=16"]),
    "Random, paced": ("random_pruning", "", PACED),
    "SNIP": ("snip", "", TRAINED_HEAD),
    "FedDST": ("feddst", "", [*TRAINED_HEAD, *LAYERS_ALIKE]),
}
SCORES = ("Global, paced", "Global by LAMP, paced")
SPARSITIES = ("80", "90", "95", "98", "99")
MEASURES = ("simple", "errors", "gap", "saliency", "mask")


def cells_of(environment: str, methods, percents, seeds, smoke: bool) -> list[GridCell]:
    """Dense training and every method at every sparsity, in an environment."""
    title, settings = ENVIRONMENTS[environment]

    def cell(method: str, percent: str, file: str, form: str = "", own=()) -> GridCell:
        forms = filter(None, ("coarse", form, percent, "smoke" * smoke))
        labels = {"environment": title, "method": method, "sparsity": f"{percent or 0} %"}
        return GridCell(labels, f"configs/methods/{file}.py:{'+'.join(forms)}", [*settings, *own], seeds)

    dense = cell("dense", "", "fedavg")
    return [dense, *(cell(name, percent, *METHODS[name]) for name in methods for percent in percents)]


def get_study(forms=""):
    asked, number = parse_forms(forms, "smoke", "headline", "scores", "dense", *ENVIRONMENTS, percent=True)
    headline, scores, smoke = (form in asked for form in ("headline", "scores", "smoke"))
    usual = ("95", "98") if scores else ("95",) if headline or smoke else SPARSITIES
    percents = usual if number is None else (f"{number:g}",)
    named = SCORES if scores else SCORES[:1] if headline or smoke else tuple(METHODS)
    methods = () if "dense" in asked else named
    environments = [name for name in ENVIRONMENTS if name in asked] or (["uniform_noniid"] if smoke else ENVIRONMENTS)
    seeds = (1, 2, 3, 4, 5) if headline else (1, 2, 3)
    cells = [cell for name in environments for cell in cells_of(name, methods, percents, seeds, smoke)]
    return Study("What sparsity costs", cells, {"method": "dense", "sparsity": "0 %"}, MEASURES)
