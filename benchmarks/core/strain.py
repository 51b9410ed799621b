"""Logarithmic strain: the symmetric matrix ε with which row vectors L become L exp(ε)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def log_strain(initial: Floats, metric: Floats) -> Floats:
    """The strain of a lattice (3, 3) towards a cell given by its metric, L_f L_fᵀ (3, 3) [Å²].

    A metric has no orientation, so that a rotation between the two cells does not count. Nothing
    shrinks to less than a third: a matrix that is no metric (angles that do not close) has an end.
    """
    inverse = np.linalg.inv(initial)
    wanted = inverse @ metric @ inverse.T
    values, vectors = np.linalg.eigh((wanted + wanted.T) / 2)
    strain: Floats = (vectors * np.log(np.maximum(values, 0.1)) / 2) @ vectors.T
    return strain


def strained(lattice: Floats, strain: Floats) -> Floats:
    """The lattice (3, 3), strained; keeps its orientation as far as a strain does."""
    values, vectors = np.linalg.eigh((strain + strain.T) / 2)
    changed: Floats = lattice @ (vectors * np.exp(values)) @ vectors.T
    return changed
