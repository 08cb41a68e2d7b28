"""Bring up the loopback interface of a new network namespace, then become the command that is given."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 1

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    request = struct.pack("16sh", b"lo", 0)
    flags = struct.unpack("16sh", fcntl.ioctl(control, GET_FLAGS, request))[1]
    fcntl.ioctl(control, SET_FLAGS, struct.pack("16sh", b"lo", flags | UP))
os.execvp(sys.argv[1], sys.argv[1:])
