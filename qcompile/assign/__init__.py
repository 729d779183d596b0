"""Deciding which layers are integer, and with which scales."""
