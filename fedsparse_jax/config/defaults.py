"""Every configuration key, its default and its meaning; the files in ``configs/`` start from here.

A section with a ``name`` picks a member of a registry; the other keys of that section are its arguments, so
that a config file replaces such a section as a whole. Defaults follow the paper (arXiv 2208.11669).
"""

from ml_collections import ConfigDict

from fedsparse_jax.core.types import UsageError


def defaults() -> ConfigDict:
    """The paper's dense federated baseline, FedAvg over eight clients, on the phantom."""
    config = ConfigDict()
    config.method = "fedavg"  # a label for tables and figures
    config.task = "regression"  # regression | classification
    config.seed = 1990
    config.rounds = 40
    config.precision = "float32"  # of products and activations: float32 | bfloat16; weights stay float32
    config.participation = 1.0  # share of the clients in each round
    config.solo_rounds = 0  # first rounds in which one client, chosen by the seed, trains alone (PruneFL)

    config.data = dict(
        source="phantom",  # phantom | bids | table; digits | idx for images with classes
        root="",  # folder (bids, idx), file (table), or where the phantom is written ("": beside the cache)
        # Voxels of the grid over the MNI box, 91x109x91 is 2 mm; or pixels of the images.
        shape=(91, 109, 91),
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
    config.client.clip = 0.0  # largest norm of a step's masked gradient; 0 for no clipping
    config.client.proximal = 0.0  # mu of FedProx
    config.client.towards = "global"  # it pulls towards the global model (the paper), or, as coded, "zero"
    config.client.optimizer_state = "fresh"  # fresh in every round | kept from the client's last round
    config.client.optimizer = dict(name="sgd", learning_rate=5e-5)
    config.server = dict(optimizer=dict(name="sgd", learning_rate=1.0))
    config.aggregation = dict(name="mean")

    config.pruning = dict(
        placement="none",  # none, or some of init | arrival | client | server, joined by +
        sparsity=0.95,  # share of the prunable weights that are zero in the end; the schedule's final
        criterion="magnitude",
        scope="global",
        prunable="everything",  # everything (the paper) | kernels: biases stay whole
        floor=0.0,  # share of each prunable leaf that a pruning leaves at least (a vote may go below)
        iterations=1,  # init: score and prune so many times (SynFlow: 100)
        over="all",  # init: whose batches are scored, of "all" clients or of "one"
        batches=1,  # batches of a client that are scored
        gate=0.0,  # arrival: a client prunes its own mask once so large a share of its predictions is right
        rewind=True,  # arrival: a client that has pruned begins again from the initial weights
    )
    # Arguments left out are filled in: ``final`` by pruning.sparsity; ``end``, or 0 for it, by the last round.
    config.pruning.schedule = dict(name="constant")
    config.regrowth = dict(  # what may come back; end=0 is the last round
        placement="none", criterion="squared_gradient", begin=1, every=1, end=0
    )
    config.regrowth.rule = dict(name="swap", fraction=0.5)

    config.execution = dict(  # changes what a run costs, never what comes out
        client_map="auto",  # vmap | scan | clients at a time; auto: scan on CPU, vmap elsewhere
        devices=1,  # share the clients of a round out among so many devices
        steps_per_chunk=16,  # local steps whose data are read at a time
        resident="auto",  # yes: keep all data on the device | no: stream them | auto: by resident_limit
        resident_limit=2**31,  # bytes
        eval_batch=4,  # examples predicted at a time
    )
    # Differentially private local steps (extra "privacy"): the largest norm of one example's gradient, the standard
    # deviation of the noise as a multiple of it (0 and 0: neither), and the delta for which the log has epsilon.
    config.privacy = dict(clip=0.0, noise=0.0, delta=1e-5)
    # What crosses the network: off | measure the messages | through: what was sent and decoded is what counts. Values
    # are float32, or lossy (through only): bfloat16 | float16 | int8; with feedback clients send the difference from
    # what they were sent, and with it what earlier messages have lost of it.
    config.wire = dict(mode="measure", dtype="float32", feedback=False)
    config.checkpoint = dict(every=1, keep=5)  # rounds between two; how many, the newest, stay on disk
    # audit_every: rounds between two privacy audits by audit_attacks (membership_auc_* in the log); 0 for none.
    config.log = dict(tensorboard=True, report=True, audit_every=0, audit_attacks=("error_threshold",))
    return config.lock()


def digits() -> ConfigDict:
    """FedAvg of a two-layer MLP over ten clients with three classes each, on scikit-learn's handwritten digits."""
    config = defaults()
    config.task, config.rounds = "classification", 100
    with config.unlocked():
        config.data.options = dict()
        config.partition = dict(name="classes_per_client", num_clients=10, classes=3)
        config.model = dict(name="mlp", hidden=(128,))
        config.client.optimizer = dict(name="sgd", learning_rate=0.1)
    config.data.source, config.data.shape = "digits", (8, 8)
    config.client.loss, config.client.batch_size, config.client.epochs = "cross_entropy", 16, 2
    config.execution.eval_batch, config.execution.steps_per_chunk = 360, 32
    config.checkpoint.every, config.log.tensorboard = 50, False
    return config


def start(mode: str, *others: str) -> tuple[ConfigDict, set[str]]:
    """Where a method's config begins: the task that the forms behind the file name ask for.

    Args:
        mode: forms joined by ``+``, such as ``digits+90``. ``digits``: the second task instead of the phantom, with
            ``cnn`` by a CNN instead of an MLP, with ``iid`` over clients that are alike; ``smoke``: a run of seconds; a
            number: the sparsity in percent; and ``others``.
        others: forms of this config.

    Returns:
        ``(config, those of others that were asked for)``

    Raises:
        UsageError: another form.
    """
    forms = set(filter(None, mode.split("+")))
    percent = {form for form in forms if form.replace(".", "", 1).isdigit()}
    task = ("cnn", "iid") if "digits" in forms else ()
    check_forms(forms - percent, "smoke", "digits", *task, *others, "a sparsity in percent")
    config = digits() if "digits" in forms else defaults()
    with config.unlocked():
        if "cnn" in forms:
            config.model = dict(name="image_cnn")
        if "iid" in forms:
            config.partition = dict(name="uniform_iid", num_clients=10)
    if "smoke" in forms:
        small(config)
    for form in percent:
        config.pruning.sparsity = float(form) / 100
    return config, forms & set(others)


def sparsify(config: ConfigDict, placement: str, *, begin=1, end=0, every=1) -> ConfigDict:
    """Adds the paper's gradual magnitude pruning, at the ``server`` or at each ``client``."""
    with config.unlocked():
        config.pruning.placement = placement
        config.pruning.schedule = dict(name="gradual", initial=0.0, begin=begin, end=end, every=every)
    return config


def in_form(config: ConfigDict, mode: str, *others: str) -> ConfigDict:
    """The config in the form asked for behind the file name: ``smoke``, one of ``others``, or as it is.

    Raises:
        UsageError: another mode.
    """
    check_forms({mode} - {""}, "smoke", *others)
    return small(config) if mode == "smoke" else config


def check_forms(forms: set[str], *known: str) -> None:
    """Refuses forms that are not ``known``."""
    for form in sorted(forms - set(known)):
        raise UsageError(
            f"the config has no form {form!r}; behind the file name may stand: {', '.join(known)}"
        )


def small(config: ConfigDict) -> ConfigDict:
    """The same experiment in seconds: the ``:smoke`` form of every config."""
    config.rounds = 3
    config.client.epochs = 1
    config.checkpoint.every = 1
    if config.task == "classification":
        return config
    with config.unlocked():
        config.data.shape = (16, 18, 16)
        config.data.options = dict(people=40, shape=(16, 18, 16), spread=0.6)
        config.data.source = "phantom"
        config.data.align = "affine"
        config.model = dict(name="flat_cnn", widths=(4, 8), poolings=2, zero_head=False)
        if config.pruning.schedule.name == "gradual":
            config.pruning.schedule.begin, config.pruning.schedule.end = 1, 3
    return config
