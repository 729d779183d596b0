"""Machines behind TVM's RPC: reaching them, asking what they are, running artifacts there."""
