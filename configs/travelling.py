"""Sites with one to five examples: FedAvg, or a model that travels from site to site (Souza et al., JAMIA 2022).

python scripts/train.py --config=configs/travelling.py:one+shuffled --workdir=runs/travelling

About 360 handwritten digits are shared out among sites with ``:one`` image each, with ``:two`` or with ``:five``, as
hospitals with a handful of scans would be. Behind the file name may also stand ``cyclic`` or ``shuffled``, a travelling
model instead of FedAvg; ``tenfold``, ten times the learning rate; and ``smoke``, a run of seconds. What to expect
stands in docs/results/travelling.md.
"""

from fedsparse_jax.config.presets import digits_defaults, parse_forms, shrink_for_smoke_test

SITES = {"one": 320, "two": 160, "five": 64}


def get_config(forms=""):
    chosen, _ = parse_forms(forms, "smoke", "cyclic", "shuffled", "tenfold", *SITES)
    config = digits_defaults()
    config.rounds, config.data.test_share = 10, 0.8
    sites = next((number for form, number in SITES.items() if form in chosen), SITES["five"])
    with config.unlocked():
        config.partition = dict(name="uniform_iid", num_clients=sites)
        config.client.optimizer = dict(name="sgd", learning_rate=1.0 if "tenfold" in chosen else 0.1)
    config.order = next((order for order in ("cyclic", "shuffled") if order in chosen), "together")
    config.method = "fedavg" if config.order == "together" else config.order
    return shrink_for_smoke_test(config) if "smoke" in chosen else config
