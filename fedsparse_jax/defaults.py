"""Every configuration key, its default and its meaning; the files in ``configs/`` start from here.

A section with a ``name`` picks a member of a registry; the other keys of that section are its arguments, so
that a config file replaces such a section as a whole. Defaults follow the paper (arXiv 2208.11669).
"""

from ml_collections import ConfigDict

from fedsparse_jax.types import UsageError


def defaults() -> ConfigDict:
    """The paper's dense federated baseline, FedAvg over eight clients, on the phantom."""
    config = ConfigDict()
    config.method = "fedavg"  # a label for tables and figures
    config.seed = 1990
    config.rounds = 40
    config.participation = 1.0  # share of the clients in each round

    config.data = dict(
        source="phantom",  # phantom | bids | table
        root="",  # folder (bids), file (table), or where the phantom is written ("": beside the cache)
        shape=(91, 109, 91),  # voxels of the grid over the MNI box; 91x109x91 is 2 mm
        align="affine",  # affine: trust the header | rough: match centre and spread of the brain
        normalise="volume",  # z-score over the "volume" (the paper), over the "brain", or "percentile"
        cache_dir="~/.cache/fedsparse_jax",
        workers=1,  # threads that read scans
        test_share=0.2,  # share of the people in the central test set
        options=ConfigDict(dict(people=512, spread=0.6), convert_dict=True),  # arguments of the source
    )
    config.partition = dict(name="uniform_iid", num_clients=8)
    config.model = dict(name="brain_age_cnn")  # output_mean and output_scale: see `build.model`

    config.client = dict(batch_size=1, epochs=4, loss="squared")
    config.client.optimizer = dict(name="sgd", learning_rate=5e-5)
    config.server = dict(optimizer=dict(name="sgd", learning_rate=1.0))
    config.aggregation = dict(name="mean")

    config.pruning = dict(placement="none", criterion="magnitude", scope="global", prunable="everything")
    config.pruning.schedule = dict(name="constant", final=0.0)

    config.execution = dict(  # changes what a run costs, never what comes out
        client_map="auto",  # vmap | scan | clients at a time; auto: scan on CPU, vmap elsewhere
        devices=1,  # share the clients of a round out among so many devices
        steps_per_chunk=16,  # local steps whose data are read at a time
        resident="auto",  # yes: keep all data on the device | no: stream them | auto: by resident_limit
        resident_limit=2**31,  # bytes
        eval_batch=4,  # scans predicted at a time
    )
    config.checkpoint = dict(keep=5)  # newest rounds that stay on disk
    config.log = dict(tensorboard=True, report=True)
    return config.lock()


def sparsify(config: ConfigDict, placement: str, *, final=0.95, begin=1, end=None, every=1) -> ConfigDict:
    """Adds the paper's gradual magnitude pruning, at the ``server`` or at each ``client``."""
    end = end or config.rounds
    with config.unlocked():
        config.pruning.placement = placement
        config.pruning.schedule = dict(
            name="gradual", initial=0.0, final=final, begin=begin, end=end, every=every
        )
    return config


def in_form(config: ConfigDict, mode: str, *others: str) -> ConfigDict:
    """The config in the form asked for behind the file name: ``smoke``, one of ``others``, or as it is.

    Raises:
        UsageError: another mode.
    """
    if mode not in ("", "smoke", *others):
        forms = ", ".join(("smoke", *others))
        raise UsageError(f"the config has no form {mode!r}; behind the file name may stand: {forms}")
    return small(config) if mode == "smoke" else config


def small(config: ConfigDict) -> ConfigDict:
    """The same experiment in seconds: the ``:smoke`` form of every config."""
    config.rounds = 3
    config.client.epochs = 1
    with config.unlocked():
        config.data.shape = (16, 18, 16)
        config.data.options = dict(people=40, shape=(16, 18, 16), spread=0.6)
        config.data.source = "phantom"
        config.data.align = "affine"
        config.model = dict(name="flat_cnn", widths=(4, 8), poolings=2)
        if config.pruning.schedule.name == "gradual":
            config.pruning.schedule.begin, config.pruning.schedule.end = 1, 3
    return config
