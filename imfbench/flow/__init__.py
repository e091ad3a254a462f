"""The mathematics of flow sampling: time grids, solvers, guidance, draws of times and noise-free counting.

Pure functions of tensors: no files, no devices, nothing else of the framework is imported here.
"""
