"""The paper's sentences as measurements: each claim has experiments, a statistic, evidence and a verdict."""
