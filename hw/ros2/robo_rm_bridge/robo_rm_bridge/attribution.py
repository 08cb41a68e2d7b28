"""Which publisher sent a message, for topics where that decides something.

rclpy of Humble and Jazzy drops the publisher's id (`rmw_message_info_t.publisher_gid`) that the middleware gives with
every message. So this takes messages from a subscription through rcl's own C interface, which is the same since Foxy. A
self-test decides whether ids are available; where not, nothing here is used and messages count as unattributed.
"""

from __future__ import annotations

import ctypes
import sys
import time
from typing import TYPE_CHECKING

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from std_msgs.msg import Bool

if TYPE_CHECKING:
    from rclpy.subscription import Subscription
    from rclpy.topic_endpoint_info import TopicEndpointInfo

_RCL_RET_OK = 0
_ROOM = 1024
"""Bytes given to each C structure, several times what it needs."""
_INFO_GID = 4 * 8 + ctypes.sizeof(ctypes.c_void_p)
"""Offset of the id's bytes: two times, two sequence numbers, and a pointer to the implementation's name."""
_GID = 16
"""Bytes of an id that count (Humble has 24, of which the last are zero)."""
_SELF_TEST = 0.5


class _Array(ctypes.Structure):
    _fields_ = (  # rcutils_uint8_array_t
        ("buffer", ctypes.POINTER(ctypes.c_uint8)),
        ("length", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
        ("allocator", ctypes.c_void_p * 16),
    )


class _Allocator(ctypes.Structure):
    _fields_ = (("members", ctypes.c_void_p * 5),)  # rcutils_allocator_t


class Attribution:
    """Takes messages with the id of who sent each. The node must not be spun by an executor."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rcl: ctypes.CDLL | None = None
        try:
            rcl, utils = ctypes.CDLL("librcl.so"), ctypes.CDLL("librcutils.so")
            utils.rcutils_get_default_allocator.restype = _Allocator
            self._array = _Array()
            allocator = utils.rcutils_get_default_allocator()
            initialise = utils.rcutils_uint8_array_init
            initialise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
            if initialise(ctypes.byref(self._array), 256, ctypes.byref(allocator)) != 0:
                return
            self._allocator = allocator
            rcl.rcl_take_serialized_message.argtypes = [ctypes.c_void_p] * 4
            self._rcl = rcl
        except (OSError, AttributeError):
            self._rcl = None
        self.possible = self._rcl is not None and self._works()
        """Whether the middleware tells who sent a message."""

    def take(self, subscription: Subscription) -> tuple[str, int, Bool] | None:
        """The oldest message that waits: its publisher's id (hex, as ``gid`` of the graph), when that was published (ns
        by the publisher's clock), and the message; or None."""
        if self._rcl is None:
            return None
        info = ctypes.create_string_buffer(_ROOM)
        handle = subscription.handle
        with handle:
            code = self._rcl.rcl_take_serialized_message(
                ctypes.c_void_p(handle.pointer), ctypes.byref(self._array), ctypes.byref(info), None
            )
        if code != _RCL_RET_OK:
            return None
        data = ctypes.string_at(self._array.buffer, self._array.length)
        published = int.from_bytes(info.raw[:8], sys.byteorder, signed=True)
        sender = info.raw[_INFO_GID : _INFO_GID + _GID].hex()
        return sender, published, deserialize_message(data, subscription.msg_type)

    def _works(self) -> bool:
        topic = f"{self._node.get_fully_qualified_name()}/self_test"
        publisher = self._node.create_publisher(Bool, topic, QoSProfile(depth=1))
        subscription = self._node.create_subscription(Bool, topic, lambda message: None, QoSProfile(depth=1))
        try:
            end = time.monotonic() + _SELF_TEST
            while time.monotonic() < end:
                publisher.publish(Bool(data=True))
                time.sleep(0.01)
                taken = self.take(subscription)
                known = [gid(info) for info in self._node.get_publishers_info_by_topic(topic)]
                if taken is not None and known:
                    return taken[2].data is True and known == [taken[0]]
            return False
        finally:
            self._node.destroy_subscription(subscription)
            self._node.destroy_publisher(publisher)


def gid(info: TopicEndpointInfo) -> str:
    """The id of a publisher in the graph, in hex, at the length that messages have."""
    return bytes(info.endpoint_gid)[:_GID].hex()
