"""Reprog: a remote prediction API, reprogrammed into a classifier for another task by queries alone."""

import os

__version__ = "0.1.0"

# One thread per matrix product, set before numpy loads its BLAS. Sums then have one order, so a job that
# moves to another worker computes the same bits; and small products on a busy machine run up to 30 times
# faster than with threads that wait for each other. Work in parallel comes from jobs and requests.
for _library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
