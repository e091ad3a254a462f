"""Trained artefacts that ship, each with its card."""
