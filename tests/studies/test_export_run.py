"""A run's model as a file: what is checked before it is handed out."""

import importlib

import jax
import numpy as np
import pytest

from fedsparse_jax.config import load_run, saved_rounds
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.export.sparse_file import sparse_model
from fedsparse_jax.models import CHAINS
from fedsparse_jax.studies import export_run


def test_the_sparse_file_holds_the_model_of_the_round(dense_run):
    first, *_, last = saved_rounds(dense_run)
    for round_, asked in ((first, first), (last, None)):
        found, (_, _, server) = export_run(dense_run, "sparse", asked), load_run(dense_run, round_)
        model = sparse_model(found.content)
        assert found.card == model.card and found.card["round"] == round_ and found.difference == 0
        jax.tree.map(np.testing.assert_array_equal, (model.params, model.masks), (server.params, server.masks))


def test_a_file_that_would_predict_otherwise_is_refused(dense_run, monkeypatch):
    pytest.importorskip("onnxruntime")
    right = CHAINS["flat_cnn"]
    monkeypatch.setitem(CHAINS, "flat_cnn", lambda *args, **options: right(*args, **options)._replace(divisor=1.0))
    with pytest.raises(UsageError, match=r"^The onnx file would predict otherwise than flat_cnn; .*CHAINS"):
        export_run(dense_run, "onnx")


def test_a_run_whose_leaves_stay_with_their_clients_is_refused(dense_run, monkeypatch):
    config, network, server = load_run(dense_run)
    config.client.personal = ("head/*",)
    module = importlib.import_module("fedsparse_jax.studies.export_run")
    monkeypatch.setattr(module, "load_run", lambda *_: (config, network, server))
    with pytest.raises(UsageError, match=r"^client\.personal is \('head/\*',\), so that there is no whole model"):
        export_run(dense_run, "sparse")


def test_an_unknown_format_is_refused(dense_run):
    with pytest.raises(UsageError, match=r"^--format is 'h5': it must be one of sparse, stablehlo, onnx\.$"):
        export_run(dense_run, "h5")
