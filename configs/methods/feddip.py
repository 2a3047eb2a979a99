"""FedDIP: dynamic pruning with error feedback, and a penalty that rises (Long et al., ICDM 2023, arXiv 2309.06805).

python scripts/train.py --config=configs/methods/feddip.py --workdir=runs/feddip \
    --config.data.source=bids --config.data.root=FOLDER

Clients compute with the pruned model, but their steps also move what is pruned. Every few rounds they send all of it,
dense, and the server prunes anew, from half to the final sparsity: a pruned weight that has grown large comes back,
with its value. A penalty on each kernel's norm rises in twenty steps. Expect about what FedSparsify-Global reaches, at
about its bytes.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "feddip"
    every = max(1, config.rounds // 20)
    with config.unlocked():
        config.hooks = dict(name="error_feedback", every=every, penalty=1e-3, steps=20, end=config.rounds)
        config.pruning.update(placement="init+server", prunable="kernels")
        config.pruning.schedule = dict(name="gradual", initial=0.5, begin=0, end=0, every=every)
    return config
