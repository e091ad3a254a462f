"""Experiments that ship."""
