"""Errors that a user can mend are one sentence that begins with what is wrong."""

import pytest

from fedsparse_jax.core.errors import ArgumentError, UsageError


@pytest.mark.parametrize(
    ("argument", "value", "rule", "sentence"),
    [
        ("final", 2, "a sparsity lies between 0 and 1", "final is 2: a sparsity lies between 0 and 1."),
        ("quorum", "most", "it is a share", "quorum is 'most': it is a share."),
        ("shape", (4, 4), "it needs three numbers", "shape is (4, 4): it needs three numbers."),
    ],
)
def test_the_sentence_begins_with_the_argument(argument, value, rule, sentence):
    error = ArgumentError(argument, value, rule)
    assert str(error) == sentence and error.argument == argument


def test_whoever_catches_usage_errors_catches_wrong_arguments():
    with pytest.raises(UsageError):
        raise ArgumentError("final", 2, "a sparsity lies between 0 and 1")
    assert issubclass(UsageError, ValueError)
