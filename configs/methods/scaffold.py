"""SCAFFOLD: control variates against the drift of clients (Karimireddy et al., ICML 2020, arXiv 1910.06378).

python scripts/train.py --config=configs/methods/scaffold.py --workdir=runs/scaffold \
    --config.data.source=bids --config.data.root=FOLDER

Each client adds to its gradients the mean of all clients' usual gradients minus its own. Clients count alike, as in the
paper. Server and client send the control variates beside the model, so that every message is twice as long. Expect
more than FedAvg of rounds with many local steps on clients that differ. ``--config.pruning.placement=server`` prunes.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "scaffold"
    with config.unlocked():
        config.hooks = dict(name="scaffold")
        config.aggregation = dict(name="keepers_mean", weighted=False)
    return config
