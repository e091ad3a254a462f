"""Datasets: one file, one format."""
