"""Fixtures that several test files share."""

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.core import UserError

_VECTORS = pa.list_(pa.list_(pa.float64()))
LEMAT_SCHEMA = pa.schema(
    [
        ("elements", pa.list_(pa.string())),
        ("nsites", pa.int32()),
        ("chemical_formula_anonymous", pa.string()),
        ("chemical_formula_reduced", pa.string()),
        ("chemical_formula_descriptive", pa.string()),
        ("nelements", pa.int8()),
        ("dimension_types", pa.list_(pa.int8())),
        ("nperiodic_dimensions", pa.int8()),
        ("lattice_vectors", _VECTORS),
        ("immutable_id", pa.string()),
        ("cartesian_site_positions", _VECTORS),
        ("species", pa.string()),
        ("species_at_sites", pa.list_(pa.string())),
        ("last_modified", pa.string()),
        ("elements_ratios", pa.list_(pa.float64())),
        ("stress_tensor", _VECTORS),
        ("energy", pa.float64()),
        ("energy_corrected", pa.float64()),
        ("forces", _VECTORS),
        ("functional", pa.string()),
        ("cross_compatibility", pa.bool_()),
        ("space_group_it_number", pa.int32()),
        ("id", pa.string()),
        ("relaxation_step", pa.int32()),
        ("relaxation_number", pa.int32()),
    ]
)
"""The columns and types of LeMaterial/LeMat-Traj."""


def one_line(call, *words):
    """The call is the user's mistake, told in one line that has all the words; returns it."""
    with pytest.raises(UserError) as info:
        call()
    text = str(info.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


@pytest.fixture(autouse=True)
def root_logger():
    """A command that was called in this process leaves no handler that writes to a closed file."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the data sets that are read but never committed; skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the data sets beside the repository (../shared/data) are not there")
    return folder


def _frame(structure, material="mp-1", step=0, *, trajectory=0, functional="pbe", **columns):
    symbols = [site.specie.symbol for site in structure]
    elements = sorted(set(symbols))
    composition = structure.composition
    row = {
        "elements": elements,
        "nsites": len(symbols),
        "chemical_formula_anonymous": composition.anonymized_formula,
        "chemical_formula_reduced": composition.reduced_formula,
        "chemical_formula_descriptive": composition.formula.replace(" ", ""),
        "nelements": len(elements),
        "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3,
        "lattice_vectors": structure.lattice.matrix.tolist(),
        "immutable_id": material,
        "cartesian_site_positions": structure.cart_coords.tolist(),
        "species": json.dumps(
            [{"name": e, "chemical_symbols": [e], "concentration": [1.0]} for e in elements]
        ),
        "species_at_sites": symbols,
        "last_modified": "2026-01-01",
        "elements_ratios": [symbols.count(e) / len(symbols) for e in elements],
        "functional": functional,
        "cross_compatibility": True,
        "id": f"{material}-{trajectory}-{functional}-{step}",
        "relaxation_step": step,
        "relaxation_number": 0,
    }
    for name, value in columns.items():
        row[name] = np.asarray(value).tolist() if isinstance(value, np.ndarray) else value
    return row


@pytest.fixture(scope="session")
def lemat_frame():
    """One frame in the layout of LeMat-Traj, as a dict of columns.

    `lemat_frame(structure, material="mp-1", step=0, *, trajectory=0, functional="pbe", **columns)`;
    any column can be given outright (`energy=…`, `forces=…` in eV/Å, `stress_tensor=…` in kB with
    VASP's sign, `nsites=0`, `lattice_vectors=None`); energy, forces and stress are null otherwise.
    """
    return _frame


def _table(frames):
    columns = {name: [frame.get(name) for frame in frames] for name in LEMAT_SCHEMA.names}
    return pa.table(columns, schema=LEMAT_SCHEMA)


@pytest.fixture(scope="session")
def lemat_table():
    """`lemat_table(frames) -> pa.Table` with exactly the columns and types of LeMat-Traj.

    `frames` are what `lemat_frame` makes, in the order of the rows.
    """
    return _table


@pytest.fixture(scope="session")
def write_lemat():
    """`write_lemat(path, frames, row_group_size=None) -> path`: `lemat_table` as a parquet file.

    A table of two relaxations, hermetically:

        frames = [lemat_frame(start, "mp-1", 0), lemat_frame(end, "mp-1", 1),
                  lemat_frame(start, "mp-2", 0), lemat_frame(end, "mp-2", 1)]
        dataset = load(str(write_lemat(tmp_path / "two.parquet", frames)))
    """

    def write(path, frames, row_group_size=None):
        pq.write_table(_table(frames), path, row_group_size=row_group_size)
        return path

    return write
