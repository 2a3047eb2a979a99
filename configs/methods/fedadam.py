"""FedAdam: the server steps with Adam on the pseudo-gradient (Reddi et al., arXiv 2003.00295).

python scripts/train.py --config=configs/methods/fedadam.py --workdir=runs/fedadam \
    --config.data.source=bids --config.data.root=FOLDER

Any other optimizer of optax is one key away: ``--config.server.optimizer.name=yogi``. Expect faster early rounds than
FedAvg where the server's learning rate suits the task, and a search for it where it does not.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "fedadam"
    with config.unlocked():
        config.server.optimizer = dict(name="adam", learning_rate=0.01, b2=0.99, eps=1e-3)
    return config
