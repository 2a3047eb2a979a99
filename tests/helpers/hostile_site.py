"""Sites of NVIDIA FLARE that misbehave: site 1 sends noise, then its last reply; site 2 dies; site 3 sends NaN."""

import math
import os
import signal
import threading

from fedsparse_jax.deploy.envelope import seal, unseal
from fedsparse_jax.deploy.flare import SiteExecutor


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
            reply["bytes"] = seal(unseal(reply["bytes"])._replace(loss=math.nan))
        return reply

    def _die_with_the_order(self):
        """The process takes the order, and is killed before it has answered."""
        pid = self._process._process.pid
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
