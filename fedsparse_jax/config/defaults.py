"""Every configuration key, its default and its meaning; the files in ``configs/`` start from here.

A section with a ``name`` picks a member of a registry; the other keys of that section are its arguments, so
that a config file replaces such a section as a whole. Defaults follow the paper (arXiv 2208.11669).
"""

from ml_collections import ConfigDict


def defaults() -> ConfigDict:
    """The paper's dense federated baseline, FedAvg over eight clients, on the phantom."""
    config = ConfigDict()
    config.method = "fedavg"  # a label for tables and figures
    config.task = "regression"  # regression | classification
    config.seed = 1990
    config.rounds = 40
    config.precision = "float32"  # of products and activations: float32 | bfloat16; weights stay float32
    config.participation = 1.0  # share of the clients in each round
    # together: all clients of a round begin from the same model, and are merged. cyclic, shuffled: the model travels
    # from client to client, by their numbers, or in an order that is drawn in each round.
    config.order = "together"
    config.solo_rounds = 0  # first rounds in which one client, chosen by the seed, trains alone (PruneFL)

    config.data = dict(
        # phantom | bids | table | files | freesurfer | cat12, or a cohort: openbhb | radiata | ixi | oasis1 | abide |
        # camcan; digits | idx | npz for images with classes
        source="phantom",
        root="",  # folder, file (table, npz), or where the phantom is written ("": beside the cache)
        # Voxels of the grid over the MNI box, 91x109x91 is 2 mm; or pixels of the images.
        shape=(91, 109, 91),
        channels=1,  # images of each head, such as 2 for T1w with FLAIR; or 3 of colour images
        # affine: trust the header | rough: match centre and spread of the brain | register: raw heads or brains, which
        # are registered to the MNI template and stripped (extra "register"; seconds a scan, kept in the cache)
        align="affine",
        # z-score over the "volume" (the paper), or over the "brain"; "percentile"; "mean", as weights of SFCN expect
        normalise="volume",
        cache_dir="~/.cache/fedsparse_jax",
        workers=1,  # threads that read scans
        # What is predicted: the column of a number or, with task=classification, of classes such as sex or diagnosis;
        # its unit, such as points; and which classes count, in order (none: all that occur).
        label="age",
        unit="",
        classes=(),
        test_share=0.2,  # share of the people in the central test set
        # Share of each client's other people on whom models are chosen, and nobody trains; 0 for none.
        validation_share=0.0,
        options=ConfigDict(dict(people=512, spread=0.6), convert_dict=True),  # arguments of the source
    )
    config.partition = dict(name="uniform_iid", num_clients=8)  # with name="site" it may be "auto": one client a site
    # output_mean and output_scale: see `network.model_from_config`. init_from names weights to start from, a run folder
    # or a file (`warm_start.READERS`); init_which is the model of the run, best | last | ROUND; init_masks=False starts
    # from its weights and prunes anew.
    config.model = dict(name="brain_age_cnn")

    _add_training(config)

    config.pruning = dict(
        placement="none",  # who prunes: none, or some of init | client | server, joined by +
        sparsity=0.95,  # share of the prunable weights that are zero in the end; the schedule's final
        criterion="magnitude",
        scope="global",
        prunable="everything",  # everything (the paper) | kernels: biases stay whole
        floor=0.0,  # share of each prunable leaf that a pruning leaves at least (a vote may go below)
        iterations=1,  # init: score and prune so many times (SynFlow: 100)
        scored_clients="all",  # init: whose batches are scored, of "all" clients or of "one"
        batches=1,  # batches of a client that are scored
    )
    # Arguments left out are filled in: ``final`` by pruning.sparsity; ``end``, or 0 for it, by the last round.
    config.pruning.schedule = dict(name="constant")
    config.regrowth = dict(  # what may come back; end=0 is the last round
        placement="none", criterion="squared_gradient", begin=1, every=1, end=0
    )
    config.regrowth.rule = dict(name="swap", fraction=0.5)
    # A further hook, a member of HOOKS: none | scaffold | lottery_tickets (with min_accuracy, reset_to_initial) |
    # error_feedback (every, penalty, steps, end) | flash (passes, budgets) | powerpropagation (exponent).
    config.hooks = dict(name="none")
    _add_execution(config)
    return config.lock()


def _add_training(config: ConfigDict) -> None:
    """How clients train, and how the server merges what they send."""
    config.client = dict(batch_size=1, epochs=4, loss="squared")
    config.client.clip = 0.0  # largest norm of a step's masked gradient; 0 for no clipping
    config.client.proximal = 0.0  # mu of FedProx
    # Anchor of the FedProx term: the "global" model (the paper), or "zero" (a published port; equals weight decay).
    config.client.proximal_anchor = "global"
    # Leaves that stay with their client and are neither sent, merged nor pruned, by patterns of their names, such as
    # head/* (FedPer) or */bias; each client is then judged by its own model.
    config.client.personal = ()
    config.client.optimizer_state = "fresh"  # fresh in every round | kept from the client's last round
    config.client.optimizer = dict(name="sgd", learning_rate=5e-5)
    # What the learning rate is multiplied by in each round, by a schedule of optax (none: 1), such as
    # cosine_decay_schedule, warmup_cosine_decay_schedule (with warmup_steps), exponential_decay (with decay_rate),
    # piecewise_constant_schedule. Its steps are rounds; it starts from 1 and takes all rounds unless it is told other.
    config.client.learning_rate_schedule = dict(name="none")
    # Each step takes learning_rate * weight_decay off every kept weight (decoupled). For optimizers that do not decay
    # weights themselves, as adamw does by its own weight_decay.
    config.client.weight_decay = 0.0
    # Random changes of the inputs of local steps, and of nothing else: none | basic (several) | shift | flip |
    # intensity | noise | rotation, with arguments.
    config.client.augmentation = dict(name="none")
    config.server = dict(optimizer=dict(name="sgd", learning_rate=1.0))
    config.server.learning_rate_schedule = dict(name="none")
    config.server.norm_bound = 0.0  # largest norm of a client's update, as a multiple of the round's median; 0 for none
    config.aggregation = dict(name="mean")


def _add_execution(config: ConfigDict) -> None:
    """How the method is executed, what may fail, what is sent, and what is kept of it."""
    config.execution = dict(  # changes what a run costs, and what comes out by no more than rounding
        client_map="auto",  # vmap | scan | clients at a time; auto: scan on CPU, vmap elsewhere
        devices=1,  # share the clients of a round out among so many devices
        clients_held=0,  # clients whose models are in memory at a time, merged as they come | 0: all of a round
        steps_per_chunk=16,  # local steps whose data are read at a time
        resident="auto",  # yes: keep all data on the device | no: stream them | auto: by resident_limit
        resident_limit=2**31,  # bytes
        eval_batch=4,  # examples predicted at a time
    )
    # Clients that fail. Simulated, by chances for each client and round: it drops out once it was sent the model, or it
    # is slow, and takes straggler_factor times as long. The server waits for `deadline` times the cohort's median time
    # (0: for all). In every run a client does not count whose loss or weights are not numbers, or `explosion` times the
    # usual ones (0: any). A round with fewer than min_clients sound ones changes nothing.
    config.faults = dict(dropout=0.0, stragglers=0.0, straggler_factor=4.0, deadline=0.0)
    config.faults.update(explosion=1000.0, min_clients=1)
    # The first so many clients lie, as a member of POISONS says: none | sign_flip | scaling | label_noise |
    # kill_weights | keep_weights | backdoor.
    config.poison = dict(name="none", clients=0)
    # Differentially private local steps (extra "privacy"): the largest norm of one example's gradient, the standard
    # deviation of the noise as a multiple of it (0 and 0: neither), and the delta for which the log has epsilon.
    config.privacy = dict(clip=0.0, noise=0.0, delta=1e-5)
    config.privacy.unit = "scan"  # whom epsilon is about: one "scan", or a "person" with all scans
    config.privacy.noise_from_seed = False  # True: the same noise in every run of the seed, for simulations only
    # Messages between server and clients: off | measure their lengths | transmit: what is decoded of them counts.
    # Values are float32, or lossy (transmit only): bfloat16 | float16 | int8; with feedback clients send the difference
    # from what they were sent, and with it the rounding error of their earlier messages (error feedback).
    config.communication = dict(mode="measure", dtype="float32", feedback=False)
    # Rounds between two; how many, the newest, stay on disk. The best one on validation is saved, and stays, as well.
    config.checkpoint = dict(every=1, keep=5)
    # Training ends once so many rounds have brought no better model on validation (0: never). Rounds count from the
    # first one at the final sparsity on; data.validation_share says who validates.
    config.early_stopping = dict(patience=0)
    # audit_every: rounds between two privacy audits by audit_attacks (membership_auc_* in the log); 0 for none.
    config.log = dict(tensorboard=True, report=True, audit_every=0, audit_attacks=("error_threshold",))
    config.log.tracker = ""  # who is told of every round: wandb | mlflow | FILE.py:FUNCTION; "" for nobody
