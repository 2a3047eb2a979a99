"""Double precision for tests that compare formulations to the last digits."""

import jax
import pytest


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield
