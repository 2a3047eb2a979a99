"""Sites of NVIDIA FLARE that misbehave: site 1 sends noise, then its last reply; site 2 dies; site 3 sends NaN."""

import json
import os
import signal
import threading

from fedsparse_jax.config import model_from_config
from fedsparse_jax.deploy.envelope import unseal
from fedsparse_jax.deploy.flare import SiteExecutor
from fedsparse_jax.deploy.own_scans import own_config
from tests.helpers.no_numbers import with_no_numbers


class HostileExecutor(SiteExecutor):
    """As the executor of an honest site, but for some rounds."""

    _before: bytes = b""

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        if task_name != "train":
            return super().execute(task_name, shareable, fl_ctx, abort_signal)
        round_, name = unseal(shareable["bytes"]).round, fl_ctx.get_identity_name()
        if (name, round_) == ("site-2", 2):
            self._die_with_the_order()
        reply = super().execute(task_name, shareable, fl_ctx, abort_signal)
        before, self._before = self._before, reply.get("bytes", b"")
        if name == "site-1":
            reply["bytes"] = {1: b"noise", 2: before}.get(round_, reply["bytes"])
        if (name, round_) == ("site-3", 3):
            known = json.loads(self._process._beginning)
            network, _ = model_from_config(own_config(known["shared"], known["own"], known["where"]))
            reply["bytes"] = with_no_numbers(reply["bytes"], network)
        return reply

    def _die_with_the_order(self):
        """The process takes the order, and is killed before it has answered."""
        pid = self._process._process.pid
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()


class DyingExecutor(HostileExecutor):
    """Its site 2 dies in round 2 and comes back; all else is honest."""

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        if task_name == "train" and (fl_ctx.get_identity_name(), unseal(shareable["bytes"]).round) == ("site-2", 2):
            self._die_with_the_order()
        return SiteExecutor.execute(self, task_name, shareable, fl_ctx, abort_signal)
