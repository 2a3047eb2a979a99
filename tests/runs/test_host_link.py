"""The wire between processes, here between threads of one."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.processes import free_ports
from fedsparse_jax.runs.host_link import meet
from tests.helpers.linked import linked


def test_all_are_told_what_all_give():
    told = linked(
        3, lambda link: (link.from_first(b"state"), link.to_first(b"%d" % link.index), link.to_all(link.index))
    )
    assert [one[0] for one in told] == [b"state"] * 3
    assert told[0][1] == [b"0", b"1", b"2"] and told[1][1] == told[2][1] == []
    assert [one[2] for one in told] == [[0, 1, 2]] * 3


def test_process_0_goes_first():
    order = []

    def play(link):
        link.after_first(lambda: order.append(link.index))
        link.wait_for_all()

    linked(2, play)
    assert order == [0, 1]


def test_who_hangs_up_is_named_to_all_others():
    lost, all_lost = [], threading.Semaphore(0)

    def lose(sentence):
        lost.append(sentence)
        all_lost.release()

    address = f"127.0.0.1:{free_ports(1)[0]}"
    with ThreadPoolExecutor(3) as pool:
        links = [pool.submit(meet, address, index, 3, 20.0, lose) for index in range(3)]
        links = [future.result()[0] for future in links]
    links[1].abort()
    assert all_lost.acquire(timeout=20) and all_lost.acquire(timeout=20)
    assert lost == [lost[0]] * 2 and lost[0].startswith("Process 1 of 3 has ended, and so this one ends, too.")
    for link in links:
        link.abort()


def test_it_listens_where_it_is_told_and_nowhere_else():
    port = free_ports(1)[0]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(meet, f"127.0.0.1:{port}", 0, 2, 3.0, print)
        with pytest.raises(OSError):
            for _ in range(30):
                socket.create_connection(("127.0.0.2", port), timeout=0.1)
        with pytest.raises(UsageError, match="Of 2 processes these did not come within 3 s: 1; start them"):
            first.result()


@pytest.mark.parametrize("address", ["here", "127.0.0.1", "127.0.0.1:x", ":9911"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UsageError, match="give HOST:PORT"):
        meet(address, 0, 2, 1.0, print)


def test_two_of_one_number_are_refused_on_both_sides():
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with ThreadPoolExecutor(3) as pool:
        all_ = [pool.submit(meet, address, index, 3, 20.0, print) for index in (0, 1, 1)]
        said = [str(one.exception(timeout=60)) for one in all_]
    assert "each once; start all with the same --num_processes" in said[0]
    assert said[0] in said[1:]


def test_process_0_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="Process 0 does not answer at 127.0.0.1"):
        meet(f"127.0.0.1:{free_ports(1)[0]}", 1, 2, 0.3, print)
