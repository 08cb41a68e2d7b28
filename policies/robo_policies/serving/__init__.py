"""Policies and reward models in front of an arm: served to its bridge, and checked before anything moves."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, _ = attach_stub(__name__, __file__)
