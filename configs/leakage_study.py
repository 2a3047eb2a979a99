"""A phantom that can be attacked: few people, trained long, for the study of leakage (docs/results/leakage.md).

python scripts/train.py --config=configs/leakage_study.py:95 --workdir=runs/leakage-95

320 people on a coarse grid, seen 44 times, so that the dense network learns many of them by heart while its test error
stays well below that of predicting the mean. As many people are in the test set, so that a random half of all people,
which a shadow model trains on, is as large as the training set.

Behind the file name forms may stand, joined by +: a number, the sparsity in percent (0 is ``dense``; 95 without
one); ``dense``; ``federated``, over eight clients instead of one; ``private``, differentially private local steps;
``smoke``, a run of seconds.
"""

from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.config.presets import parse_forms, shrink_for_smoke_test, sparsify


def get_config(forms=""):
    chosen, percent = parse_forms(forms, "dense", "federated", "private", "smoke", percent=True)
    config = defaults()
    config.rounds = 22
    with config.unlocked():
        config.data.options = dict(people=640, shape=(16, 18, 16), spread=0.6)
        config.model = dict(name="flat_cnn", widths=(16, 32, 32))
        config.partition = dict(name="uniform_iid", num_clients=8 if "federated" in chosen else 1)
        config.client.optimizer = dict(name="adam", learning_rate=2e-3)
    config.data.shape, config.data.test_share = (16, 18, 16), 0.5
    config.client.batch_size, config.client.epochs, config.client.optimizer_state = 8, 2, "kept"
    config.execution.eval_batch = 50
    config.pruning.prunable = "kernels"
    if percent is not None:
        config.pruning.sparsity = percent / 100
    if "private" in chosen:
        config.privacy.clip, config.privacy.noise = 10.0, 0.1
    dense = "dense" in chosen or config.pruning.sparsity == 0
    config.method = "fedavg" if dense else "fedsparsify_global"
    if not dense:
        sparsify(config, "server", begin=5, end=14)
    return shrink_for_smoke_test(config) if "smoke" in chosen else config
