"""The headline, tested: does pruning to 95 % cost accuracy, centralized and in four federations?

python scripts/study.py --study=configs/studies/headline.py --workdir=runs/headline

Dense training beside FedSparsify-Global with the paced schedule, with the quickstart's network and budget but for 40
rounds: one setting for all environments. Five seeds each, 50 runs of about a minute and a half on two idle cores.
Behind the file name, ``:smoke`` asks for two cells of seconds.
"""

from fedsparse_jax.config.presets import parse_forms
from fedsparse_jax.studies import GridCell, Study

ENVIRONMENTS = {
    "centralized": ("centralized", []),
    "uniform, IID": ("", ["partition.name=uniform_iid"]),
    "skewed, IID": ("", ["partition.name=skewed_iid"]),
    "uniform, non-IID": ("", ["partition.name=uniform_noniid"]),
    "skewed, non-IID": ("", ["partition.name=skewed_noniid"]),
}
ROUNDS, SEEDS = 40, (1, 2, 3, 4, 5)
MEASURES = ("simple", "errors", "gap", "saliency", "mask")


def cells_of(environment: str, smoke: bool) -> list[GridCell]:
    """Dense training and Global at 95 % in an environment."""
    form, settings = ENVIRONMENTS[environment]
    spec = lambda *forms: f"configs/quickstart.py:{'+'.join(filter(None, (form, *forms, 'smoke' * smoke)))}"
    settings = settings if smoke else [*settings, f"rounds={ROUNDS}"]
    labels = lambda method, sparsity: {"environment": environment, "method": method, "sparsity": sparsity}
    return [
        GridCell(labels("dense", "0 %"), spec("dense"), settings, SEEDS),
        GridCell(labels("Global, paced", "95 %"), spec(), [*settings, "pruning.schedule.name=paced"], SEEDS),
    ]


def get_study(forms=""):
    chosen, _ = parse_forms(forms, "smoke")
    environments = ["uniform, non-IID"] if chosen else list(ENVIRONMENTS)
    cells = [cell for environment in environments for cell in cells_of(environment, bool(chosen))]
    reference = {"method": "dense", "sparsity": "0 %"}
    return Study("95 % sparsity in every environment", cells, reference, MEASURES)
