"""FedPer: every client keeps a head of its own, and shares the rest (Arivazhagan et al., 2019, arXiv 1912.00818).

python scripts/train.py --config=configs/methods/fedper.py --workdir=runs/fedper \
    --config.data.source=bids --config.data.root=FOLDER

``client.personal`` names the leaves that are neither sent, merged nor pruned; ``--config.client.personal=*/bias`` keeps
all biases at home instead. Judged are the clients' own models. Expect much on a client's own classes and sites, and
little on others. ``--config.pruning.placement=server`` prunes what is shared.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "fedper"
    config.client.personal = ("dense2/*",) if config.model.name == "mlp" else ("head/*",)
    return config
