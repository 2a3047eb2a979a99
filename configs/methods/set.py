"""SET on the server: sparse from the start, weights grow at random (Mocanu et al., Nature Communications 2018, arXiv
1707.04780).

python scripts/train.py --config=configs/methods/set.py --workdir=runs/set \
    --config.data.source=bids --config.data.root=FOLDER

As RigL, but what grows is drawn at random, so that nobody sends a gradient, and the same share is dropped until the
end. Expect less than from RigL, at fewer bytes.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "set"
    end = config.rounds - 1  # what grows after the last round would never be trained
    with config.unlocked():
        config.pruning.update(placement="init", criterion="random", scope="erk", prunable="kernels")
        config.regrowth.update(placement="server", criterion="random", every=max(1, config.rounds // 20), end=end)
        config.regrowth.rule = dict(name="swap", fraction=0.3, end=end, anneal=False, dropped_may_return=True)
    return config
