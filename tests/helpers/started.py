"""Processes that a test has started, directly or not: found by where they work, waited for."""

import os
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
