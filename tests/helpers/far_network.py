"""Two network namespaces joined by a link with delay, jitter and loss: two computers, as far as TCP can tell.

The link is a process of its own between two TUN devices, so it needs no kernel module (``tc netem`` is one that many
kernels do not have); packets keep their order, as on one road. Run as a script it is that process; its standard input
takes ``DELAY JITTER LOSS`` (s, s, share; each way), and ``down``.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
BRIDGE, SERVER = "10.77.0.1", "10.77.0.2"


def why_not() -> str:
    """Why there can be no such link here, or ""."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip"):
        return "network namespaces need ip (Debian: iproute2)"
    if not os.path.exists("/dev/net/tun"):
        return "the link needs /dev/net/tun"
    name = f"robo-try-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"no network namespaces here: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


class FarNetwork:
    """The two namespaces and the link; ``bridge`` and ``server`` are the namespaces' names."""

    def __init__(self, delay: float = 0.020, jitter: float = 0.005, loss: float = 0.02) -> None:
        self.usual = (delay, jitter, loss)
        self.bridge, self.server = f"robo-a-{os.getpid()}", f"robo-b-{os.getpid()}"

    def __enter__(self) -> FarNetwork:
        words = [sys.executable, __file__, self.bridge, self.server]
        self._link = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._link.stdout.readline() == "ready\n"
        self.restore()
        return self

    def __exit__(self, *_: object) -> None:
        with self._link:
            self._link.kill()
        for name in (self.bridge, self.server):
            subprocess.run(["ip", "netns", "del", name], check=False)

    def change(self, delay: float, jitter: float = 0.0, loss: float = 0.0) -> None:
        """From now on, each way: s, s, share of the packets."""
        self._say(f"{delay} {jitter} {loss}")

    def restore(self) -> None:
        """Back to what it was made with."""
        self.change(*self.usual)

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._say("down")

    def _say(self, line: str) -> None:
        self._link.stdin.write(line + "\n")
        self._link.stdin.flush()

    @contextlib.contextmanager
    def at_the_bridge(self) -> Iterator[None]:
        """This thread, and those that it starts, are on the bridge's computer."""
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/var/run/netns/{self.bridge}", os.O_RDONLY)
        try:
            assert libc.setns(there, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            yield
        finally:
            assert libc.setns(home, _CLONE_NEWNET) == 0
            os.close(home)
            os.close(there)

    def at_the_server(self, words: list[str], clock_ahead: int = 0) -> list[str]:
        """The command that runs ``words`` on the server's computer, with its steady clock so many seconds ahead."""
        other_time = ["unshare", "--time", "--monotonic", str(clock_ahead)] if clock_ahead else []
        return [*other_time, "ip", "netns", "exec", self.server, *words]


def _tun(name: str, namespace: str, address: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    for words in (
        f"ip netns add {namespace}",
        f"ip link set {name} netns {namespace}",
        f"ip -n {namespace} addr add {address}/24 dev {name}",
        f"ip -n {namespace} link set {name} txqueuelen 1000 up",
        f"ip -n {namespace} link set lo up",
    ):
        subprocess.run(words.split(), check=True)
    return descriptor


def main() -> None:
    ends = [_tun("robofar0", sys.argv[1], BRIDGE), _tun("robofar1", sys.argv[2], SERVER)]
    delay = jitter = loss = 0.0
    up, chance = True, random.Random(7)
    queue: list[tuple[float, int, int, bytes]] = []
    last, count = [0.0, 0.0], 0
    print("ready", flush=True)
    poll = select.poll()
    for descriptor in (*ends, sys.stdin.fileno()):
        poll.register(descriptor, select.POLLIN)
    while True:
        wait = max(queue[0][0] - time.monotonic(), 0.0) * 1000 if queue else None
        for descriptor, _ in poll.poll(wait):
            if descriptor == sys.stdin.fileno():
                words = sys.stdin.readline().split()
                if not words:
                    return
                up = words != ["down"]
                if up:
                    delay, jitter, loss = map(float, words)
                continue
            side = ends.index(descriptor)
            packet = os.read(descriptor, 65536)
            if not up or chance.random() < loss:
                continue
            count += 1
            last[side] = max(last[side], time.monotonic() + delay + chance.uniform(-jitter, jitter))
            heapq.heappush(queue, (last[side], count, 1 - side, packet))
        while queue and queue[0][0] <= time.monotonic():
            _, _, side, packet = heapq.heappop(queue)
            with contextlib.suppress(BlockingIOError):
                os.write(ends[side], packet)


if __name__ == "__main__":
    main()
