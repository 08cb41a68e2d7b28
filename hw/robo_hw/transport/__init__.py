"""The policy in one process, the arm's bridge in another, on the same computer or, over mutual TLS, on another.

The bridge holds a ``PolicyClient``, which never blocks; the policy's process runs a ``PolicyServer``. Messages are
msgpack maps checked against a schema, of bounded size; nothing received is ever executed. Both sides prove who they are
before anything else (``docs/network.md``); images travel in shared memory where the two share a computer.
``docs/deploying.md`` tells how the parts are used together.
"""

from robo_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
