"""Policies and reward models in front of an arm: served to its bridge, and checked before anything moves."""
