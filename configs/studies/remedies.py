"""What closes the gap between dense and sparse training? Changes of FedSparsify-Global, on seeds that are not reported.

python scripts/study.py --study=configs/studies/remedies.py --workdir=runs/remedies

Two environments in which the paced schedule by magnitude loses accuracy, three seeds of dense training, with a constant
and a decaying rate, and of each change: 54 runs of two to five minutes of a core. Behind the file name forms may stand,
joined by ``+``: environments (``centralized``, ``skewed_iid``); changes (``magnitude``, which is none, ``lamp``,
``faster``, ``powers``, ``decay``, ``lamp_slower``, ``lamp_decay``); a sparsity in percent, 95 without one.
"""

from fedsparse_jax.config.presets import parse_forms
from fedsparse_jax.studies import GridCell, Study

ENVIRONMENTS = {
    "centralized": ("centralized", ["partition.num_clients=1"]),
    "skewed_iid": ("skewed, IID", ["partition.name=skewed_iid"]),
}
DECAY = ["client.learning_rate_schedule.name=cosine_decay_schedule", "client.learning_rate_schedule.alpha=0.05"]
DENSE = [("dense", []), ("dense, decaying rate", DECAY)]
REMEDIES = {
    "magnitude": ("magnitude", []),
    "lamp": ("LAMP", ["pruning.criterion=lamp"]),
    "faster": ("twice as fast", ["pruning.schedule.steps=0.25"]),
    "powers": ("powerpropagation", ["hooks.name=powerpropagation"]),
    "decay": ("magnitude, decaying rate", DECAY),
    "lamp_slower": ("LAMP, slower", ["pruning.criterion=lamp", "pruning.schedule.steps=0.75"]),
    "lamp_decay": ("LAMP, decaying rate", ["pruning.criterion=lamp", *DECAY]),
}
SEEDS = (11, 12, 13)


def cells_of(environment: str, remedies, percent: str) -> list[GridCell]:
    """Dense training and every change, in an environment."""
    title, settings = ENVIRONMENTS[environment]

    def cell(method: str, sparsity: str, spec: str, own) -> GridCell:
        labels = {"environment": title, "method": method, "sparsity": f"{sparsity} %"}
        return GridCell(labels, f"configs/methods/{spec}", [*settings, *own], SEEDS)

    def changed(name: str) -> GridCell:
        method, own = REMEDIES[name]
        spec = f"fedsparsify_global.py:coarse+{percent}"
        return cell(method, percent, spec, ["pruning.schedule.name=paced", *own])

    return [*(cell(method, "0", "fedavg.py:coarse", own) for method, own in DENSE), *map(changed, remedies)]


def get_study(forms=""):
    asked, number = parse_forms(forms, *ENVIRONMENTS, *REMEDIES, percent=True)
    environments = [name for name in ENVIRONMENTS if name in asked] or ENVIRONMENTS
    remedies = [name for name in REMEDIES if name in asked] or REMEDIES
    cells = [cell for name in environments for cell in cells_of(name, remedies, f"{number or 95:g}")]
    return Study("What closes the gap", cells, {"method": "dense", "sparsity": "0 %"})
