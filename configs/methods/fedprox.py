"""FedProx: FedAvg whose clients are held near the global model by a proximal term (Li et al., arXiv 1812.06127).

python scripts/train.py --config=configs/methods/fedprox.py --workdir=runs/fedprox \
    --config.data.source=bids --config.data.root=FOLDER

``client.proximal`` is mu. Expect the accuracy of FedAvg where clients are alike, and a steadier run where they are not.
``--config.client.proximal_anchor=zero`` is the reading of a published port, which pulls towards zero: weight decay.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "fedprox"
    config.client.proximal = 0.01
    return config
