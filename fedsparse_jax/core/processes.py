"""What several processes of this program need of their machine: ports to meet at, and an end with their parent."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at, all different; another process may take one before they are used."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]


def when_parent_ends(act: Callable[[], object], parent: int) -> None:
    """Calls ``act``, in a thread, as soon as the process ``parent``, which has started this one, is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        act()

    threading.Thread(target=watch, daemon=True).start()
