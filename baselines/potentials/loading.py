"""Checks of every published potential: an intact file, one line of error, a known energy.

Weights have loaded without a word in another version of their library and then given wrong numbers
(matgl's older than version 3, in 4.x: NaCl at -1.30 instead of -3.37 eV/atom), so a named model has
to give rocksalt an energy that its functional can have, and so has a folder of matgl from a path.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.core import UserError
from benchmarks.core.files import READ_ERRORS
from benchmarks.core.published_weights import PublishedWeights

NACL = 5.64
"""Lattice constant of the rocksalt NaCl whose energy is checked [Å]."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Bounds of the energy of rocksalt NaCl [eV/atom]: at least `low`, at most `high`."""

    low: float
    high: float
    source: str
    """The source of the bounds."""


PBE = Reference(-3.9, -3.1, "PBE: -3.37, with Materials Project's correction of Cl -3.67")
"""VASP's total energy with PAW and PBE, in Materials Project, OMat24 and MatPES alike; Materials
Project's correction is -0.614 eV per Cl. A window, because what the weights themselves give was not
measured here."""
R2SCAN = Reference(-7.6, -6.1, "r2SCAN: -6.87 with CHGNet's r2SCAN weights")
"""The total energy of a meta-GGA has another zero, that of the reference atoms of the PBE
potentials. The value was measured with CHGNet's r2SCAN weights only, so that the window is wide."""


def measured(energy: float, tolerance: float = 1e-3) -> Reference:
    """Return narrow bounds around the energy that these weights gave when measured [eV/atom]."""
    return Reference(energy - tolerance, energy + tolerance, f"measured: {energy}")


def reference_energy(weights: PublishedWeights) -> Reference:
    """Return the energy that published weights must give for rocksalt NaCl."""
    if weights.nacl_energy is not None:
        return measured(weights.nacl_energy)
    return R2SCAN if weights.functional == "r2SCAN" else PBE


def check_reference_energy(potential: Any, reference: Reference, name: str) -> None:
    """Check that a model gives rocksalt NaCl (a = 5.64 Å) a possible energy.

    Args:
        potential: An ASE calculator.
        reference: What is right.
        name: Of the model, for the message.

    Raises:
        UserError: The energy is another one, or not finite, or there is none.
    """
    energy = nacl_energy(potential, name)
    if not (math.isfinite(energy) and reference.low <= energy <= reference.high):
        message = (
            f"{name} gives NaCl {energy:.4f} eV/atom, which is not within "
            f"{reference.low:.4f} … {reference.high:.4f} ({reference.source}): these are other "
            "weights, or weights for another version of the library"
        )
        raise UserError(message)


def nacl_energy(potential: Any, name: str) -> float:
    """Return the energy that an ASE calculator gives rocksalt NaCl (a = 5.64 Å) [eV/atom].

    Args:
        potential: The calculator.
        name: Of the model, for the message.

    Raises:
        UserError: There is none.
    """
    from ase.build import bulk

    rocksalt = bulk("NaCl", "rocksalt", a=NACL)
    rocksalt.calc = potential
    with one_line(f"{name} has no energy for NaCl"):
        return float(rocksalt.get_potential_energy()) / len(rocksalt)


def intact(path: Path) -> Path:
    """Return the path if it is a whole checkpoint (a zip archive), without importing torch.

    Raises:
        UserError: There is no such file, or it is something else, or its end is missing.
    """
    if not path.is_file():
        message = f"{path}: no such file"
        raise UserError(message)
    if not zipfile.is_zipfile(path):
        message = f"{path} is no torch checkpoint, or breaks off: get it again"
        raise UserError(message)
    return path


def bundled(package: str, file: str, remedy: str) -> Path:
    """Find a file that an installed package brings, without importing the package.

    Raises:
        UserError: The package or the file is not there; the line ends in `remedy`.
    """
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / file if spec and spec.origin else None
    if path is None or not path.is_file():
        message = f"the weights in the package {package} ({file}) are not there: {remedy}"
        raise UserError(message)
    return path


TRUST = "add --trust if you trust it"
"""What to do about weights of the user's own whose loading could run code."""


@contextlib.contextmanager
def loading(path: Path, *, code: str = TRUST) -> Iterator[None]:
    """Load the file at `path` in silence; see `one_line`.

    Args:
        path: A file or folder of weights.
        code: What to do if it holds more than tensors and plain data.
    """
    with one_line(f"{path} cannot be loaded", code=code), quiet():
        yield


@contextlib.contextmanager
def one_line(what: str, *, code: str = TRUST) -> Iterator[None]:
    """Turn an exception of a library over wrong weights into one line that begins with `what`.

    Raises:
        UserError: It raised.
    """
    try:
        yield
    except READ_ERRORS as error:
        if "Weights only load failed" in str(error):  # torch says how to do so all the same
            reason = (
                "it holds more than tensors and plain data, and loading that could run any code"
            )
            remedy = code
        else:
            first = (str(error).strip() or "no reason given").splitlines()[0]
            reason, remedy = f"{type(error).__name__}: {first[:300]}", "wrong weights?"
        raise UserError(f"{what} ({reason}): {remedy}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the messages and warnings of libraries while they import or load."""
    with (
        warnings.catch_warnings(),
        Path(os.devnull).open("w") as null,
        contextlib.redirect_stdout(null),
    ):
        warnings.simplefilter("ignore")
        yield
