"""One connection: who is silent, and who is not."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from robo_hw.transport import Timeouts
from robo_hw.transport.channel import Channel
from robo_hw.transport.connection import Connection, ConnectionLost
from robo_hw.transport.limits import HELLO
from robo_hw.transport.messages import FROM_CLIENT
from robo_hw.transport.wire import pack

PING = pack({"type": "ping", "sequence": 1}, HELLO)


@pytest.fixture
def both() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(Channel(ours, "a bridge"), FROM_CLIENT, HELLO, Timeouts(silence=0.3)), theirs


def test_time_taken_to_work_off_what_came_is_not_their_silence(both):
    connection, theirs = both
    theirs.sendall(PING * 3)  # one piece, three messages
    for _ in range(3):
        assert connection.receive(1.0) is not None
        time.sleep(0.2)
    assert connection.receive(0.01) is None


def test_one_that_says_nothing_is_left_after_the_silence_that_is_allowed(both):
    connection, theirs = both
    theirs.sendall(PING)
    assert connection.receive(1.0) is not None
    begun = time.monotonic()
    with pytest.raises(ConnectionLost, match=r"nothing received for 0\.3 s"):
        connection.receive(5.0)
    assert time.monotonic() - begun > 0.25
