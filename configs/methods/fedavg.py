"""FedAvg, the dense baseline: the paper's network at 2 mm over eight clients (McMahan et al., AISTATS 2017).

python scripts/train.py --config=configs/methods/fedavg.py --workdir=runs/fedavg \
    --config.data.source=bids --config.data.root=FOLDER

Every client trains the global model on its own scans; the server takes the size-weighted mean. Expect hours on a GPU
and days on a CPU at full size.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "fedavg"
    return config
