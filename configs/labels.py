"""Not only age: classes and other numbers from scans, by the name of a column of their tables.

python scripts/train.py --config=configs/labels.py:sex --workdir=runs/sex

Behind the file name stands what is predicted of the phantom: ``:sex`` (M or F), ``:diagnosis`` (control or patient) or
``:memory`` (a test score in points); with ``+smoke`` a run of seconds. Of your own scans ``--config.data.label`` names
a column of the table, and ``--config.data.unit`` the unit of a number. Classes may be named, in order, by
``--config.data.classes``; the network's ``--config.model.classes`` is their number.
"""

from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.config.presets import parse_forms, shrink_for_smoke_test, sparsify

CLASSES = {"sex": ("F", "M"), "diagnosis": ("control", "patient")}


def get_config(forms="sex"):
    chosen, _ = parse_forms(forms, "smoke", *CLASSES, "memory")
    label = next((name for name in (*CLASSES, "memory") if name in chosen), "sex")
    config = defaults()
    config.rounds, config.method = 26, "fedsparsify_global"
    config.data.label = label
    config.data.shape, config.data.test_share = (24, 28, 24), 0.3
    config.client.batch_size, config.client.epochs, config.execution.eval_batch = 4, 2, 50
    with config.unlocked():
        config.data.options = dict(people=512, shape=(24, 28, 24), spread=0.6, sex_strength=8.0, patients=0.5)
        config.model = dict(name="flat_cnn")
        config.client.optimizer = dict(name="adam", learning_rate=1.5e-3)
    sparsify(config, "server", begin=8, end=18)
    if "smoke" in chosen:
        shrink_for_smoke_test(config)
        config.pruning.sparsity = 0.8
        with config.unlocked():
            config.data.options = {**config.data.options, "sex_strength": 8.0, "patients": 0.5}
    if label in CLASSES:
        config.task, config.client.loss = "classification", "cross_entropy"
        with config.unlocked():
            config.model.classes = len(CLASSES[label])
    else:
        config.data.unit = "points"
    return config
