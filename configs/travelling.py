"""Sites with a handful of scans: FedAvg, or a model that travels from site to site (Souza et al., JAMIA 2022).

python scripts/train.py --config=configs/travelling.py:one+shuffled --workdir=runs/travelling

About sixty people of the phantom are shared out among sites with ``:one`` scan each, or with ``:five``. Behind the file
name may also stand ``cyclic`` or ``shuffled``, a travelling model instead of FedAvg; ``tenfold``, ten times the
learning rate; and ``smoke``, a run of seconds. What to expect stands in docs/results/travelling.md.
"""

from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.config.presets import parse_forms, shrink_for_smoke_test

SITES = {"one": 60, "five": 12}


def get_config(forms=""):
    chosen, _ = parse_forms(forms, "smoke", "cyclic", "shuffled", "tenfold", *SITES)
    config = defaults()
    config.rounds = 15
    with config.unlocked():
        config.data.options = dict(people=240, shape=(16, 18, 16), spread=0.6)
        config.model = dict(name="flat_cnn", widths=(4, 8), poolings=2)
        config.client.optimizer = dict(name="sgd", learning_rate=3e-3 if "tenfold" in chosen else 3e-4)
    config.data.shape, config.data.test_share = (16, 18, 16), 0.7
    config.client.epochs, config.client.clip = 1, 10.0
    config.execution.eval_batch, config.log.tensorboard = 60, False
    config.partition.num_clients = SITES["five" if "five" in chosen else "one"]
    config.order = next((order for order in ("cyclic", "shuffled") if order in chosen), "together")
    config.method = config.order if config.order != "together" else "fedavg"
    config.checkpoint.every = config.rounds
    return shrink_for_smoke_test(config) if "smoke" in chosen else config
