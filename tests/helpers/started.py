"""Processes that a test has started, directly or not: found by where they work, waited for, on ports of their own."""

import os
import socket
import time

import psutil

PATIENCE = 600  # seconds


def wait_until(done, problem):
    """Returns once ``done()`` is true."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, problem
        time.sleep(1)


def processes_of(place):
    """Processes that this test has started, by the folder that they work in."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and place in " ".join([*process.cmdline(), process.cwd()]):
                found.append(process)
        except psutil.Error:
            continue
    return found


def free_port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
