"""A site as a process: what it refuses comes back as a sentence, and where it dies another one is started."""

import pytest

from fedsparse_jax.deploy.own_scans import shared_config
from fedsparse_jax.deploy.site_process import JOIN, PLAY, SiteFailed, SiteProcess
from tests.helpers import three_sites


def test_a_site_refuses_by_a_sentence_and_comes_back_after_its_death(tmp_path):
    shared = shared_config(three_sites.config("configs/quickstart.py:smoke", tmp_path))
    site = SiteProcess(shared, {"data.root": str(tmp_path / "none")}, "own.json", 0, "north")
    try:
        with pytest.raises(SiteFailed, match="none': there is no such folder"):
            site.ask(JOIN)
        first = site._process
        first.kill()
        with pytest.raises(SiteFailed, match="The process of north has died; the next round starts a new one"):
            site.ask(PLAY, b"order")
        with pytest.raises(SiteFailed, match="none': there is no such folder"):
            site.ask(JOIN)
        assert site._process.pid != first.pid
    finally:
        site.stop()
