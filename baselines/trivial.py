"""Relaxers that compute no forces: the floors that a model has to beat.

`mean-delta` and `gbr` are fitted by `python -m baselines.train`; the JSON card beside their files
names the data.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

from baselines.gbr import N_ELEMENTS
from benchmarks.core import Geometry, Relaxed, Status
from benchmarks.core.bonds import BOND_CUTOFF, balancing_shifts, neighbours
from benchmarks.core.geometry import symmetric_lattice
from benchmarks.core.symmetry import space_group

Floats = NDArray[np.float64]

MEAN_DELTA = Path(__file__).with_name("mean_delta.json")
SYMPREC = 0.8
"""The tolerance of `Idealise` [Å]."""
BALANCE = 1.6
"""The default factor of `BondBalance`."""
GBR = Path(__file__).with_name("gbr.skops")


class Identity:
    """Predicts no change. Every skill is measured against it."""

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Return copies; see `benchmarks.core.Relaxer`."""
        return [Relaxed(status=Status.OK, structure=structure.copy()) for structure in structures]


class Idealise:
    """Snaps the start to the space group that moyo finds at a loose tolerance.

    The metric of the cell and the coordinates are averaged over the operations of the group; order
    of the sites and setting of the cell stay. Where there is no consistent group at the tolerance,
    smaller ones are tried.

    Args:
        symprec: The tolerance [Å]; the default is the best one on the validation part of
            `perturbed`.
    """

    def __init__(self, symprec: float = SYMPREC) -> None:
        self.symprec = symprec

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Idealise each structure; see `benchmarks.core.Relaxer`."""
        return _each_ordered(structures, self._idealised)

    def _idealised(self, start: Geometry) -> Geometry:
        for symprec in self.symprec * np.array([1.0, 0.75, 0.5, 0.25]):
            group = space_group(start, symprec)
            if group is not None:
                lattice = symmetric_lattice(start.lattice, group.rotations)
                return Geometry(lattice, group.averaged(start.frac_coords), start.numbers)
        return start


class BondBalance:
    """Moves each site to where its bonds balance; the cell stays as it is.

    Args:
        factor: The multiple of `benchmarks.core.bonds.balancing_shifts` by which the sites move;
            the default is the best one on the validation part of `perturbed`.
    """

    def __init__(self, factor: float = BALANCE) -> None:
        self.factor = factor

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Balance the bonds of each structure; see `benchmarks.core.Relaxer`."""
        return _each_ordered(structures, self._balanced)

    def _balanced(self, start: Geometry) -> Geometry:
        vectors = neighbours(start.lattice, start.frac_coords, BOND_CUTOFF)
        shifts = self.factor * balancing_shifts(vectors, start.numbers)
        moved = start.frac_coords + shifts @ np.linalg.inv(start.lattice)
        return start._replace(frac_coords=moved)


def _each_ordered(
    structures: Sequence[Structure], change: Callable[[Geometry], Geometry]
) -> list[Relaxed]:
    """Change each structure; one whose sites are shared by several species is `unsupported`."""
    return [
        Relaxed(status=Status.OK, structure=change(Geometry.of(structure)).structure())
        if structure.is_ordered
        else Relaxed(status=Status.UNSUPPORTED, detail="mixed sites")
        for structure in structures
    ]


class MeanDelta:
    """Scales every cell by the mean logarithmic strain of the training pairs.

    Args:
        path: A JSON file with `log_strain`, the mean of ln(V_final / V_initial) / 3.
    """

    def __init__(self, path: str | Path = MEAN_DELTA) -> None:
        card = json.loads(Path(path).read_text())
        self.stretch = math.exp(card["log_strain"])

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Scale each cell; see `benchmarks.core.Relaxer`."""
        return [
            Relaxed(status=Status.OK, structure=_with_lattice(s, s.lattice.matrix * self.stretch))
            for s in structures
        ]


class VolumeScaling:
    """Scales the cell to the volume of pymatgen's DLS predictor (Chu et al., CMS 146, 184 (2018)).

    The predictor scales the cell so that its shortest contact, relative to bond lengths of the
    Materials Project, becomes right; it limits the volume to between 0.5 and 1.5 times the initial
    one. A structure in which no two atoms are within its reach is `unsupported`.
    """

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Scale each cell; see `benchmarks.core.Relaxer`."""
        from pymatgen.core.structure_prediction.volume_predictor import DLSVolumePredictor

        predictor = DLSVolumePredictor()
        return [_dls(predictor, structure) for structure in structures]


def _dls(predictor: Any, structure: Structure) -> Relaxed:
    try:
        with warnings.catch_warnings():  # it warns of elements for which it uses atomic radii
            warnings.simplefilter("ignore")
            unknown = [e.symbol for e in structure.composition.elements if math.isnan(e.X)]
            # without an electronegativity it would return its lower limit, half the volume
            scale = math.nan if unknown else predictor.predict(structure) / structure.volume
    except ValueError as error:  # no element with a radius, or nothing in reach
        return Relaxed(status=Status.UNSUPPORTED, detail=str(error))
    if unknown:
        detail = f"no electronegativity of {', '.join(unknown)}"
        return Relaxed(status=Status.UNSUPPORTED, detail=detail)
    lattice = structure.lattice.matrix * math.cbrt(scale)
    return Relaxed(status=Status.OK, structure=_with_lattice(structure, lattice))


class GradientBoosting:
    """Gradient boosting on composition and cell; it changes the cell only.

    There are three regressors: for ln(V_f / V_i), for the rest of ln(a_f / a_i), with one model
    for the three axes, and for the changes of the angles, likewise. The strain that they give is
    projected on the strains that the point group of the input allows, so that noise breaks no
    symmetry.

    Args:
        path: A skops file written by `python -m baselines.train gbr`.
    """

    def __init__(self, path: str | Path = GBR) -> None:
        from baselines.gbr import load

        self.model = load(Path(path))

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Predict each cell; see `benchmarks.core.Relaxer`."""
        supported = [s for s in structures if _within_plutonium(s)]
        cells = iter(self.model.lattices(supported))
        return [
            Relaxed(status=Status.OK, structure=_with_lattice(s, next(cells)))
            if _within_plutonium(s)
            else Relaxed(status=Status.UNSUPPORTED, detail="mixed sites, or beyond plutonium")
            for s in structures
        ]


def _within_plutonium(structure: Structure) -> bool:
    """Return True if every site holds one element, and features exist for it."""
    return structure.is_ordered and all(site.specie.Z <= N_ELEMENTS for site in structure)


def _with_lattice(structure: Structure, lattice: Floats) -> Structure:
    """Return the same sites and fractional coordinates in another cell."""
    return Structure(Lattice(lattice), structure.species_and_occu, structure.frac_coords)
