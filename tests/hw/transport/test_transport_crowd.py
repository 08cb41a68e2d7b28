"""A thousand connections at the policy server's door: the bridge gets in, the arm in use goes on, nothing piles up."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from bridge_in_use import ARM, QUICK, InUse, connected, until
from policy_credentials import credentials
from served_policies import Rising

from robo_hw.transport import ClientState, PolicyClient, PolicyServer, Timeouts
from robo_hw.transport.gate import MOST_WAITING

MANY = 1000
KINDS = ("tcp", "tls")
FIRST = {"silent": b"", "half": b"\x16\x03\x01\x02\x00\x01\x00", "noise": bytes(range(256)) * 4}

# The crowd, a process of its own: HOST PORT MANY FIRST; it keeps the connections it gets, and replaces those it loses.
CROWD = """
import selectors, socket, sys
host, port, many, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4])
selector, made = selectors.DefaultSelector(), 0

def connect():
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex((host, port))
    selector.register(one, selectors.EVENT_READ | (selectors.EVENT_WRITE if first else 0))

while True:
    while len(selector.get_map()) < many:
        connect()
        made += 1
        if made == many:
            print("there", flush=True)
    for key, events in selector.select(0.1):
        one = key.fileobj
        try:
            if events & selectors.EVENT_WRITE:
                one.send(first)
                selector.modify(one, selectors.EVENT_READ)
            if events & selectors.EVENT_READ and one.recv(4096):
                continue
            if not events & selectors.EVENT_READ:
                continue
        except BlockingIOError:
            continue
        except OSError:
            pass
        selector.unregister(one)
        one.close()
"""


@contextlib.contextmanager
def crowd(address, first: bytes) -> Iterator[None]:
    words = [sys.executable, "-c", CROWD, address.host, str(address.port), str(MANY), first.hex()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "there\n"
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", FIRST)
def test_a_thousand_strangers_shut_nobody_out_and_cost_little(tmp_path, kind, first):
    ours, theirs = credentials(tmp_path, kind)
    said: list[str] = []
    timeouts = Timeouts(authenticate=2.0)
    with PolicyServer(ARM, f"{kind}://127.0.0.1:0", Rising(ARM), None, timeouts, said.append, ours) as server:
        with PolicyClient(ARM, str(server.address), timeouts=QUICK, credentials=theirs) as client, InUse(client) as use:
            threads, memory = threading.active_count(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            said.clear()
            with crowd(server.address, FIRST[first]):
                until(lambda: server.refused > 200, what=lambda: server.refused)
                began = time.monotonic()
                with PolicyClient(
                    ARM, str(server.address), role="monitor", timeouts=QUICK, credentials=theirs
                ) as monitor:
                    connected(monitor)
                    print(f"{kind}, {first}: in after {time.monotonic() - began:.2f} s, {server.refused} refused")
                    assert server._gate.waiting <= MOST_WAITING
                    assert threading.active_count() <= threads + 3, "no thread for a stranger"
                    assert len(os.listdir("/proc/self/fd")) < 400
                before = len(use.gaps)
                until(lambda: len(use.gaps) > before + 10)
            assert client.status().connections == 1
            assert client.status().state is ClientState.CONNECTED
            assert max(use.gaps) < 2.5
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 60_000, "kB"
        strange = [line for line in said if "refused" in line]
        assert len(strange) <= 2 + (time.monotonic() - began) / 4, "a line every five seconds, not one for each"
        until(lambda: not server._gate.waiting)


def test_the_bridge_gets_in_first_though_a_thousand_came_before_it(tmp_path):
    ours, theirs = credentials(tmp_path, "tcp")
    with (
        PolicyServer(ARM, "tcp://127.0.0.1:0", Rising(ARM), None, Timeouts(), credentials=ours) as server,
        crowd(server.address, b""),
        PolicyClient(ARM, str(server.address), timeouts=QUICK, credentials=theirs) as client,
    ):
        connected(client)


def test_strangers_on_a_unix_socket_are_of_the_same_user_or_are_not_let_in(tmp_path):
    path = f"{tmp_path}/policy.sock"
    with PolicyServer(ARM, path, Rising(ARM), None, Timeouts(handshake=1.0)) as server, contextlib.ExitStack() as stack:
        for _ in range(200):  # our own user's, but silent: they keep eight places at most, and lose them
            made = stack.enter_context(socket.socket(socket.AF_UNIX))
            made.connect(path)
        with PolicyClient(ARM, path, timeouts=QUICK) as client:
            connected(client)
            until(lambda: server.sessions == 1)
            assert client.status().connections == 1
