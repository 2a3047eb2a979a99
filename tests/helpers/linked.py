"""Processes of one run, played by threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fedsparse_jax.core.processes import free_ports
from fedsparse_jax.runs.host_link import HostLink, meet


def linked(count: int, play: Callable[[HostLink], object]) -> list:
    """What ``play(link)`` gives in each of ``count`` threads, by their numbers."""
    address = f"127.0.0.1:{free_ports(1)[0]}"

    def process(index: int):
        link, _ = meet(address, index, count, 20.0, print)
        try:
            told = play(link)
            link.close()
            return told
        except BaseException:
            link.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(process, range(count)))
