"""Relaxations of other sources, converted: units, settings, ids, and what is refused."""

import copy
import csv
import errno
import gzip
import json

import ase.io
import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixSymmetry

from benchmarks.core import UserError
from benchmarks.data import frames, load
from benchmarks.data.__main__ import main
from benchmarks.data.convert.convert import convert
from benchmarks.data.convert.inputs import ConvertOptions
from studies.dft_settings.materials import settings_of
from tests.conftest import LEMAT_SCHEMA

EV = 1.602176634e-19
"""J."""
CELLS = (5.8, 5.7, 5.69)
"""Edges of the conventional cell of rock salt in three ionic steps, Å."""


# --- inputs, each a relaxation of two-atom NaCl in a cubic cell ---------------------------------


def images(cells=CELLS, **results):
    """ASE images with energy -6.5, -6.6, … eV and a stress of 0.0005 eV/Å^3 along x."""
    made = []
    for i, a in enumerate(cells):
        atoms = Atoms("NaCl", [[0, 0, 0], [a / 2, a / 2, a / 2]], cell=[a] * 3, pbc=True)
        known = {
            "energy": -6.5 - 0.1 * i,
            "forces": [[0.025, 0, 0], [-0.025, 0, 0]],
            "stress": [0.0005, 0, 0, 0, 0, 0],
            **results,
        }
        atoms.calc = SinglePointCalculator(
            atoms, **{name: value for name, value in known.items() if value is not None}
        )
        made.append(atoms)
    return made


def vectors(name, rows):
    text = "".join(f"<v> {' '.join(f'{x:.8f}' for x in row)} </v>" for row in rows)
    return f'<varray name="{name}">{text}</varray>'


def structure(a, more=""):
    cell = vectors("basis", np.eye(3) * a)
    return (
        f"<structure><crystal>{cell}</crystal>"
        f"{vectors('positions', [[0, 0, 0], [0.5, 0.5, 0.5]])}{more}</structure>"
    )


def tag(name, value):
    kind = {bool: "logical", int: "int", str: "string", list: ""}.get(type(value), "")
    if isinstance(value, list):
        return f'<v name="{name}"> {" ".join(map(str, value))} </v>'
    shown = {True: "T", False: "F"}[value] if isinstance(value, bool) else value
    return f'<i type="{kind}" name="{name}"> {shown} </i>'


def vasprun(cells=CELLS, incar=None, parameters=None, more="", potcar="PAW_PBE"):
    """A `vasprun.xml` with the elements that a relaxation by VASP writes."""
    used = {"IBRION": 2, "NSW": 99, "NELM": 60, "ISIF": 3, "GGA": "--", "ENMAX": 520.0}
    used |= parameters or {}
    atoms = "".join(f"<rc><c>{s}</c><c>{i}</c></rc>" for i, s in enumerate(("Na", "Cl"), 1))
    types = "".join(
        f"<rc><c>1</c><c>{s}</c><c>1.0</c><c>1.0</c><c>{potcar} {s} 06Sep2000</c></rc>"
        for s in ("Na", "Cl")
    )
    steps = "".join(
        '<calculation><scstep><energy><i name="e_fr_energy"> -1.0 </i></energy></scstep>'
        + structure(a, more)
        + vectors("forces", [[0.025, 0, 0], [-0.025, 0, 0]])
        + vectors("stress", [[-0.8, 0, 0], [0, 0.1, 0], [0, 0, 0]])
        + f'<energy><i name="e_fr_energy"> {-6.5 - 0.1 * i:.8f} </i>'
        + '<i name="e_wo_entrp"> -99.0 </i><i name="e_0_energy"> -98.0 </i></energy></calculation>'
        for i, a in enumerate(cells)
    )
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>'
        '<generator><i name="version" type="string">6.3.0 </i></generator>'
        f"<incar>{''.join(tag(*each) for each in (incar or {}).items())}</incar>"
        f'<parameters><separator name="general">'
        f"{''.join(tag(*each) for each in used.items())}</separator></parameters>"
        f'<atominfo><array name="atoms"><set>{atoms}</set></array>'
        f'<array name="atomtypes"><set>{types}</set></array></atominfo>'
        f"{steps}</modeling>\n"
    )


def archive(program="VASP", cells=CELLS):
    """A processed NOMAD archive in SI units, with the sections that are read."""
    metres = [np.eye(3) * a * 1e-10 for a in cells]
    energy = [(-6.5 - 0.1 * i) * EV for i in range(len(cells))]
    force = 0.025 * EV * 1e10
    forces = [[force, 0, 0], [-force, 0, 0]]
    return {
        "metadata": {"entry_id": "x"},
        "run": [
            {
                "program": {"name": program},
                "method": [
                    {
                        "dft": {
                            "xc_functional": {
                                "exchange": [{"name": "GGA_X_PBE"}],
                                "correlation": [{"name": "GGA_C_PBE"}],
                            }
                        },
                        "atom_parameters": [
                            {"label": "Na"},
                            {
                                "label": "Cl",
                                "hubbard_kanamori_model": {"u": 5 * EV, "j": EV, "orbital": "p"},
                            },
                        ],
                    }
                ],
                "system": [
                    {
                        "atoms": {
                            "labels": ["Na", "Cl"],
                            "species": [11, 17],
                            "positions": [[0, 0, 0], [cell[0][0] / 2] * 3],
                            "lattice_vectors": cell.tolist(),
                            "periodic": [True, True, True],
                        }
                    }
                    for cell in metres
                ],
                "calculation": [
                    {
                        "system_ref": f"#/run/0/system/{i}",
                        "energy": {"total": {"value": -99 * EV}, "free": {"value": energy[i]}},
                        "forces": {"total" if program == "VASP" else "free": {"value": forces}},
                        "stress": {"total": {"value": [[4e7, 0, 0], [0, 0, 0], [0, 0, -8e7]]}},
                    }
                    for i in range(len(cells))
                ],
            }
        ],
        "workflow2": {"m_def": "simulationworkflowschema.GeometryOptimization"},
        "results": {
            "material": {"material_id": "ImNw-jRVt1oPkznR_Fb3"},
            "method": {"simulation": {"precision": {"planewave_cutoff": 520 * EV}}},
        },
    }


@pytest.fixture
def converted(tmp_path):
    """Converts files given as name=content; gives the rows of the table, or raises `UserError`."""

    def run(files, **options):
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            path = folder / name
            if isinstance(content, list):
                ase.io.write(path, content)
            elif isinstance(content, dict):
                path.write_text(json.dumps(content))
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        out = tmp_path / "out.parquet"
        convert([folder / name for name in files], out, ConvertOptions(**options))
        return pq.read_table(out).to_pylist()

    return run


@pytest.fixture
def refused(converted):
    """The reason why one input is not converted."""

    def run(name, content, **options):
        with pytest.raises(UserError) as raised:
            converted({name: content}, **options)
        assert "\n" not in str(raised.value)
        return str(raised.value).partition(f"{name}: ")[2]

    return run


# --- numbers ------------------------------------------------------------------------------------


def check_frames(rows):
    """What all builders above describe."""
    assert [row["relaxation_step"] for row in rows] == [0, 1, 2]
    np.testing.assert_allclose([row["energy"] for row in rows], [-6.5, -6.6, -6.7], rtol=1e-12)
    for row, a in zip(rows, CELLS, strict=True):
        np.testing.assert_allclose(row["lattice_vectors"], np.eye(3) * a, rtol=1e-12)
        positions = [[0, 0, 0], [a / 2, a / 2, a / 2]]
        np.testing.assert_allclose(row["cartesian_site_positions"], positions, atol=1e-12)
        np.testing.assert_allclose(row["forces"], [[0.025, 0, 0], [-0.025, 0, 0]], rtol=1e-12)
        assert row["species_at_sites"] == ["Na", "Cl"]


@pytest.mark.parametrize("name", ["nacl.extxyz", "nacl.traj"])
def test_ase_stress_turns_its_sign_and_becomes_kilobar(converted, name):
    rows = converted({name: images()}, functional="pbesol")
    check_frames(rows)
    # 0.0005 eV/Å^3 = 0.0801 GPa = 0.801 kB of tension, which VASP prints as negative
    np.testing.assert_allclose(rows[0]["stress_tensor"][0][0], -0.8010883104, rtol=1e-9)
    assert rows[0]["functional"] == "pbesol"


def test_vasprun_keeps_its_stress_and_gives_the_free_energy(converted):
    rows = converted({"vasprun.xml": vasprun()})
    check_frames(rows)
    assert rows[0]["stress_tensor"] == [[-0.8, 0, 0], [0, 0.1, 0], [0, 0, 0]]
    assert rows[0]["functional"] == "pbe"


def test_nomad_vasp_is_in_si_units_with_the_sign_of_vasp(converted):
    rows = converted({"archive.json": archive("VASP")})
    check_frames(rows)
    # 0.04 GPa = 0.4 kB
    np.testing.assert_allclose(np.diag(rows[0]["stress_tensor"]), [0.4, 0, -0.8], rtol=1e-12)


def test_nomad_aims_has_the_sign_of_ase_and_its_forces_elsewhere(converted):
    rows = converted({"archive.json": archive("FHI-aims")})
    check_frames(rows)
    np.testing.assert_allclose(np.diag(rows[0]["stress_tensor"]), [-0.4, 0, 0.8], rtol=1e-12)


def test_stress_of_a_program_whose_sign_is_not_known_is_left_out(converted):
    rows = converted({"archive.json": archive("CASTEP")})
    assert [row["stress_tensor"] for row in rows] == [None] * 3


def test_energies_of_one_trajectory_are_of_one_kind(converted):
    mixed = archive()
    for calculation in mixed["run"][0]["calculation"][1:]:
        del calculation["energy"]["free"]
    rows = converted({"archive.json": mixed})
    np.testing.assert_allclose([row["energy"] for row in rows], [-99, -99, -99])


def test_free_energy_of_an_ase_calculator_comes_first(converted):
    rows = converted({"a.traj": images(free_energy=-7.0)}, functional="pbe")
    assert [row["energy"] for row in rows] == [-7, -7, -7]


# --- the table ----------------------------------------------------------------------------------


def test_columns_and_types_are_those_of_lemat_traj(tmp_path, converted):
    converted({"vasprun.xml": vasprun()})
    assert pq.read_schema(tmp_path / "out.parquet").equals(LEMAT_SCHEMA)


def test_schema_of_the_shared_files_is_the_same(tmp_path, converted, shared_data):
    converted({"vasprun.xml": vasprun()})
    there = pq.read_schema(shared_data / "vasp" / "trajectories.parquet")
    assert pq.read_schema(tmp_path / "out.parquet").equals(there)


def test_formulas_follow_optimade(converted):
    rows = converted({"vasprun.xml": vasprun()})
    described = {key: value for key, value in rows[0].items() if "formula" in key}
    assert described == {
        "chemical_formula_anonymous": "AB",
        "chemical_formula_reduced": "ClNa",
        "chemical_formula_descriptive": "Cl Na",
    }
    assert (rows[0]["elements"], rows[0]["elements_ratios"]) == (["Cl", "Na"], [0.5, 0.5])
    assert (rows[0]["nsites"], rows[0]["nelements"]) == (2, 2)


def test_larger_part_comes_first_in_the_anonymous_formula(converted):
    made = [
        Atoms("Fe4O6", np.arange(30).reshape(10, 3) * a / 30, cell=[a] * 3, pbc=True)
        for a in (7.0, 7.1)
    ]
    row = converted({"a.extxyz": made}, functional="pbe")[0]
    assert row["chemical_formula_anonymous"] == "A3B2"
    assert row["chemical_formula_reduced"] == "Fe2O3"
    assert row["chemical_formula_descriptive"] == "Fe4 O6"


def test_converted_table_loads_with_first_and_last_frame_as_the_pair(tmp_path, converted):
    converted({"vasprun.xml": vasprun(), "a.extxyz": images((6.0, 5.5))}, functional="pbe")
    dataset = load(str(tmp_path / "out.parquet"))
    assert not dataset.quarantined
    assert [sample.source for sample in dataset] == ["vasp", "extxyz"]
    pairs = [(sample.initial.lattice.a, sample.final.lattice.a) for sample in dataset]
    np.testing.assert_allclose(pairs, [(5.8, 5.69), (6.0, 5.5)])
    assert [sample.n_frames for sample in dataset] == [3, 2]


def test_round_trip_gives_back_what_ase_had(tmp_path, converted):
    written = images()
    converted({"a.extxyz": written}, functional="pbe")
    for frame, atoms in zip(frames(str(tmp_path / "out.parquet")), written, strict=True):
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        np.testing.assert_allclose(frame.geometry.lattice, atoms.cell.array, atol=1e-8)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-8)
        np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-12)


def test_ids_name_material_trajectory_functional_and_step(converted):
    rows = converted({"archive.json": archive()})
    assert {row["immutable_id"] for row in rows} == {"nomad-ImNw-jRVt1oPkznR_Fb3"}
    key = rows[0]["id"].removesuffix("-pbe-0")
    number = key.removeprefix("nomad-ImNw-jRVt1oPkznR_Fb3-")
    assert number.isdecimal()
    assert [row["id"] for row in rows] == [f"{key}-pbe-{step}" for step in range(3)]


def test_two_entries_of_one_material_are_two_trajectories(tmp_path, converted):
    other = archive(cells=(6.0, 5.9))
    converted({"a.archive.json": archive(), "b.archive.json": other})
    dataset = load(str(tmp_path / "out.parquet"))
    assert len(set(dataset.ids)) == 2
    assert len({sample.material_id for sample in dataset}) == 1


def test_runs_of_an_archive_are_calculations_of_one_trajectory(converted):
    two = archive()
    second = copy.deepcopy(two["run"][0])
    for calculation in second["calculation"]:
        calculation["system_ref"] = calculation["system_ref"].replace("run/0", "run/1")
    two["run"].append(second)
    rows = converted({"archive.json": two})
    assert [row["relaxation_number"] for row in rows] == [0, 0, 0, 1, 1, 1]
    assert [row["relaxation_step"] for row in rows] == [0, 1, 2, 3, 4, 5]


def test_same_inputs_give_the_same_bytes(tmp_path, converted):
    files = {"vasprun.xml": vasprun(), "archive.json": archive()}
    converted(files)
    first = (tmp_path / "out.parquet").read_bytes()
    converted(files)
    assert (tmp_path / "out.parquet").read_bytes() == first


def test_many_row_groups_hold_what_one_does(tmp_path, converted, monkeypatch):
    monkeypatch.setattr("benchmarks.data.convert.layout._GROUP_BYTES", 1)
    files = {f"{i}.extxyz": images((6.0 + i, 5.0)) for i in range(4)}
    rows = converted(files, functional="pbe")
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups == 4
    assert len({row["id"] for row in rows}) == 8


# --- settings -----------------------------------------------------------------------------------


def settings(tmp_path):
    with (tmp_path / "out.settings.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("tags", "parameters", "expected"),
    [
        ({}, {}, "pbe"),
        ({"GGA": "PE"}, {"GGA": "PE"}, "pbe"),
        ({"GGA": "PS"}, {"GGA": "PS"}, "pbesol"),
        ({"METAGGA": "SCAN"}, {"METAGGA": "--"}, "scan"),
        ({"METAGGA": "R2SCAN", "GGA": "PE"}, {}, "r2scan"),
        ({}, {"METAGGA": "NONE", "LHFCALC": False, "LUSE_VDW": False, "IVDW": 0}, "pbe"),
    ],
)
def test_functional_of_a_vasprun(converted, tags, parameters, expected):
    text = vasprun(incar=tags, parameters=parameters)
    assert converted({"vasprun.xml": text})[0]["functional"] == expected


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"GGA": "RP"}, "GGA = RP"),
        ({"METAGGA": "RSCAN"}, "METAGGA = RSCAN"),
        ({"LHFCALC": True}, "LHFCALC = True"),
        ({"IVDW": 11}, "IVDW = 11"),
        ({"LUSE_VDW": True, "GGA": "BO"}, "LUSE_VDW = True"),
    ],
)
def test_functional_that_lemat_traj_has_not_is_refused_whatever_is_said(refused, tags, said):
    reason = refused("vasprun.xml", vasprun(incar=tags), functional="pbe")
    assert reason == f"functional that LeMat-Traj has not: {said}"


def test_potcars_of_an_unknown_functional_need_the_option(converted, refused):
    text = vasprun(potcar="PAW")
    assert "--functional" in refused("vasprun.xml", text)
    assert converted({"vasprun.xml": text}, functional="pbesol")[0]["functional"] == "pbesol"


def test_file_that_names_its_functional_is_believed(converted):
    rows = converted({"vasprun.xml": vasprun(incar={"GGA": "PS"})}, functional="pbe")
    assert rows[0]["functional"] == "pbesol"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["GGA_X_PBE_SOL", "GGA_C_PBE_SOL"], "pbesol"),
        (["MGGA_X_SCAN"], "scan"),
        (["MGGA_X_R2SCAN", "MGGA_C_R2SCAN"], "r2scan"),
    ],
)
def test_functional_of_an_archive(converted, names, expected):
    said = archive()
    said["run"][0]["method"][0]["dft"]["xc_functional"] = {
        "contributions": [{"name": name} for name in names]
    }
    assert converted({"archive.json": said})[0]["functional"] == expected


@pytest.mark.parametrize("name", ["HYB_GGA_XC_HSE06", "GGA_C_PBE", "GGA_X_PBE_SOL"])
def test_other_functional_of_an_archive_is_refused(refused, name):
    said = archive()
    said["run"][0]["method"][0]["dft"]["xc_functional"]["exchange"] = [{"name": name}]
    assert refused("archive.json", said).startswith("functional that LeMat-Traj has not: ")


def test_dispersion_correction_in_an_archive_is_no_pbe(refused):
    said = archive("FHI-aims")
    said["run"][0]["method"][0]["electronic"] = {"van_der_waals_method": "TS"}
    assert refused("archive.json", said) == "functional with a van der Waals correction: TS"


def test_settings_of_a_vasprun_stand_beside_the_table(tmp_path, converted):
    tags = {"LDAU": True, "LDAUU": [5.0, 0.0], "LDAUJ": [1.0, 0.0], "ENCUT": 520.0}
    rows = converted({"vasprun.xml": vasprun(incar=tags)})
    [line] = settings(tmp_path)
    assert line["sample_id"] == rows[0]["id"].removesuffix("-0")
    assert (line["program"], line["functional"], line["n_frames"]) == ("VASP", "pbe", "3")
    assert float(line["cutoff_ev"]) == 520
    assert json.loads(line["hubbard_u_ev"]) == {"Na": 4.0}


def test_settings_of_an_archive_are_in_electronvolt(tmp_path, converted):
    converted({"archive.json": archive()})
    [line] = settings(tmp_path)
    assert float(line["cutoff_ev"]) == 520
    assert json.loads(line["hubbard_u_ev"]) == {"Cl": 4.0}


def test_settings_are_what_the_leaderboard_reads(tmp_path, converted):
    tags = {"LDAU": True, "LDAUU": [5.0, 0.0], "LDAUJ": [1.0, 0.0], "ENCUT": 520.0}
    converted({"vasprun.xml": vasprun(incar=tags), "a.extxyz": images()}, functional="pbe")
    source = str(tmp_path / "out.parquet")
    known = settings_of(load(source), [source])
    assert known.to_numpy().tolist() == [
        ["pbe", "VASP", "+U", "520"],
        ["pbe", "unknown", "none stated", "unknown"],
    ]


# --- refused ------------------------------------------------------------------------------------


def test_one_frame(refused):
    assert refused("a.extxyz", images((5.8,)), functional="pbe") == "single frame"
    assert refused("vasprun.xml", vasprun((5.8,))) == "single frame"
    assert refused("archive.json", archive(cells=(5.8,))) == "single frame"


def test_no_frame(refused):
    assert refused("archive.json", archive(cells=())) == "no ionic step"


def test_not_periodic(refused):
    slab = images()
    slab[1].pbc = [True, True, False]
    assert refused("a.extxyz", slab, functional="pbe") == "not periodic in three dimensions"
    molecule = archive()
    del molecule["run"][0]["system"][0]["atoms"]["lattice_vectors"]
    assert refused("archive.json", molecule) == "not periodic in three dimensions"


def test_changing_number_of_atoms(refused):
    lost = images()
    del lost[2][1]
    lost[2].calc = None
    reason = refused("a.extxyz", lost, functional="pbe")
    assert reason == "frames of different composition: step 2"


def test_swapped_atoms(refused):
    swapped = archive()
    swapped["run"][0]["system"][1]["atoms"]["labels"] = ["Cl", "Na"]
    assert refused("archive.json", swapped) == "frames of different site order: step 1"


def test_positions_that_are_not_numbers(refused):
    broken = archive()
    broken["run"][0]["system"][2]["atoms"]["positions"][1][0] = float("nan")
    assert refused("archive.json", broken) == "lattice or positions not finite: step 2"


def test_collapsed_cell(refused):
    flat = images()
    flat[1].set_cell([5.0, 5.0, 0.0])
    assert refused("a.traj", flat, functional="pbe").startswith("singular, collapsed")


def test_unknown_element(refused):
    ghost = images()
    for atoms in ghost:
        atoms.numbers[0] = 0
    assert refused("a.traj", ghost, functional="pbe") == "unknown element: step 0: 'X' at site 0"


def test_forces_of_another_length(refused):
    cut = archive()
    cut["run"][0]["calculation"][0]["forces"]["total"]["value"].pop()
    assert "(1, 3) instead of (2, 3)" in refused("archive.json", cut)


def test_fixed_cell_is_no_relaxation_of_a_crystal_unless_asked_for(converted, refused):
    text = vasprun((5.8, 5.8, 5.8))
    assert refused("vasprun.xml", text) == "the cell was held fixed (--keep constrained)"
    assert len(converted({"vasprun.xml": text}, keep=["constrained"])) == 3


def test_selective_dynamics(refused):
    moves = '<varray name="selective" type="logical"><v> T T T </v><v> F F F </v></varray>'
    reason = refused("vasprun.xml", vasprun(more=moves))
    assert reason == "some sites were held fixed (--keep constrained)"


def test_fixed_atoms_are_a_constraint_and_kept_symmetry_is_not(converted, refused):
    held = images()
    for atoms in held:
        atoms.set_constraint(FixAtoms([0]))
    assert "held fixed" in refused("a.traj", held, functional="pbe")
    for atoms in held:
        atoms.set_constraint(FixSymmetry(atoms))
    assert len(converted({"a.traj": held}, functional="pbe")) == 3


def test_fixed_atoms_keep_their_forces(converted):
    held = images()
    for atoms in held:
        atoms.set_constraint(FixAtoms([0]))
    rows = converted({"a.traj": held}, functional="pbe", keep=["constrained"])
    assert rows[0]["forces"] == [[0.025, 0, 0], [-0.025, 0, 0]]


@pytest.mark.parametrize("ibrion", [0, 5, 8])
def test_molecular_dynamics_and_phonons_by_vasp(refused, ibrion):
    reason = refused("vasprun.xml", vasprun(parameters={"IBRION": ibrion}))
    assert reason == f"not a relaxation: IBRION = {ibrion}"


def test_external_pressure(refused):
    reason = refused("vasprun.xml", vasprun(parameters={"PSTRESS": 100.0}))
    assert reason == "relaxed under pressure: PSTRESS = 100.0"


def test_tags_of_vasp_in_an_archive(converted, refused):
    said = archive()
    method = said["run"][0]["method"][0]
    method["x_vasp_incar_in"] = {"METAGGA": "SCAN", "NELM": [60, 60]}
    method["x_vasp_incar_out"] = {"GGA": ["PE", "PE"], "METAGGA": "--", "IBRION": 2, "PSTRESS": 0.0}
    assert converted({"archive.json": said})[0]["functional"] == "scan"
    method["x_vasp_incar_out"]["PSTRESS"] = 50.0
    assert refused("archive.json", said) == "relaxed under pressure: PSTRESS = 50.0"
    method["x_vasp_incar_in"]["IVDW"] = 12
    method["x_vasp_incar_out"]["PSTRESS"] = 0.0
    assert refused("archive.json", said) == "functional that LeMat-Traj has not: IVDW = 12"


def test_archive_of_a_run_that_was_killed(converted, refused):
    said = archive()
    said["run"][0]["clean_end"] = False
    assert refused("archive.json", said).startswith("unfinished: breaks off after 3")
    assert len(converted({"archive.json": said}, keep=["unfinished"])) == 3


def test_other_workflows_of_nomad(refused):
    said = archive()
    said["workflow2"] = {"m_def": "simulationworkflowschema.molecular_dynamics.MolecularDynamics"}
    assert refused("archive.json", said).startswith("not a geometry optimisation: ")
    said["workflow2"] = {}
    said["workflow"] = [{"type": "single_point"}]
    assert refused("archive.json", said) == "not a geometry optimisation: single_point"


def test_archive_without_runs(refused):
    assert refused("archive.json", {"data": {"m_def": "x"}}).startswith("no section `run`")
    assert refused("archive.json", "[]").startswith("no section `run`")


def test_calculation_without_its_system(refused):
    lost = archive()
    del lost["run"][0]["calculation"][1]["system_ref"]
    assert refused("archive.json", lost).startswith("a calculation without its system")


def test_run_that_was_killed_has_no_relaxed_structure_unless_asked_for(converted, refused):
    text = vasprun()
    cut = text[: text.rindex("<calculation>") + 200]
    reason = refused("vasprun.xml", cut)
    assert reason == "unfinished: breaks off after 2 ionic steps (--keep unfinished)"
    assert len(converted({"vasprun.xml": cut}, keep=["unfinished"])) == 2


@pytest.mark.parametrize("name", ["vasprun.xml", "archive.json", "a.extxyz", "a.traj"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9])
def test_truncated_file_never_gives_a_traceback(tmp_path, converted, refused, name, part):
    whole = {
        "vasprun.xml": vasprun(),
        "archive.json": archive(),
        "a.extxyz": images(),
        "a.traj": images(),
    }
    converted({name: whole[name]}, functional="pbe")
    content = (tmp_path / "in" / name).read_bytes()
    reason = refused(name, content[: int(part * len(content))], functional="pbe")
    assert reason


def test_wrong_content_under_a_known_name(refused):
    for name in ("vasprun.xml", "archive.json", "a.extxyz", "a.traj"):
        assert refused(name, b"\x00\xff\xfenonsense", functional="pbe").startswith("not readable")


def test_missing_labels_are_null_and_do_not_matter(converted):
    rows = converted({"a.extxyz": images(forces=None, stress=None, energy=None)}, functional="pbe")
    for row in rows:
        assert row["energy"] is row["forces"] is row["stress_tensor"] is None


def test_overflowing_numbers_are_null(converted):
    text = vasprun().replace("<v> 0.02500000 0.00000000 0.00000000 </v>", "<v> *** 0.0 0.0 </v>")
    assert [row["forces"] for row in converted({"vasprun.xml": text})] == [None] * 3


# --- the command --------------------------------------------------------------------------------


def test_command_walks_folders_and_reports_what_it_left(tmp_path, capsys):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "vasprun.xml").write_text(vasprun())
    (folder / "deep" / "copy_of_vasprun.xml").write_text(vasprun())
    (folder / "deep" / "bad.xyz").write_text("nonsense")
    (folder / "deep" / "INCAR").write_text("ENCUT = 520")
    (folder / ".hidden" / "vasprun.xml").write_text(vasprun((6.0, 5.9)))
    with gzip.open(folder / "archive.json.gz", "wt") as file:
        json.dump({"data": {"archive": archive()}}, file)
    out = tmp_path / "all.parquet"
    assert main(["convert", str(folder), str(folder / "vasprun.xml"), "--out", str(out)]) == 2
    shown = capsys.readouterr().out
    assert "2 of 4 inputs, 6 frames" in shown
    assert f"the same content as {folder / 'deep' / 'copy_of_vasprun.xml'}" in shown
    assert "bad.xyz" in shown
    assert "not readable as extxyz" in shown
    assert len(load(str(out))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "all.parquet",
        "all.settings.csv",
        "in",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.xyz", "--out", "x.parquet"], "missing.xyz: no such file or folder"),
        (["empty", "--out", "x.parquet"], "empty: no file in it that is called"),
        (["a.txt", "--out", "x.parquet"], "its name tells no format: say it with --format"),
        (["a.txt", "--out", "x.csv"], "--out x.csv: must end in .parquet"),
        (["a.txt", "--out", "b.parquet"], "b.parquet is a folder"),
        (["a.txt", "--out", "no/x.parquet"], "--out no/x.parquet: its folder does not exist"),
        (["a.txt", "--out", "x.parquet", "--functional", "hse06"], "--functional hse06: not one"),
        (["a.txt", "--out", "x.parquet", "--format", "cif"], "--format cif: not one of nomad"),
        (["a.txt", "--out", "x.parquet", "--format", "extxyz"], "not readable as extxyz"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "b.parquet").mkdir()
    (tmp_path / "a.txt").write_text("nonsense")
    assert main(["convert", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.parquet", "empty"]


def test_failed_conversion_leaves_an_older_table(tmp_path, converted, refused):
    converted({"vasprun.xml": vasprun()})
    before = (tmp_path / "out.parquet").read_bytes()
    refused("vasprun.xml", vasprun((5.8,)))
    assert (tmp_path / "out.parquet").read_bytes() == before


def test_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.data.convert.convert.read_input", interrupt)
    (tmp_path / "vasprun.xml").write_text(vasprun())
    out = str(tmp_path / "out.parquet")
    assert main(["convert", str(tmp_path / "vasprun.xml"), "--out", out]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["vasprun.xml"]


def test_full_disk_is_one_line_and_leaves_the_older_pair(tmp_path, monkeypatch, capsys, converted):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    converted({"vasprun.xml": vasprun()})
    before = {path: path.read_bytes() for path in tmp_path.glob("out.*")}
    assert len(before) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "vasprun.xml").write_text(vasprun((6.0, 5.9)))
    monkeypatch.setattr("os.fsync", full)
    out = str(tmp_path / "out.parquet")
    assert main(["convert", str(tmp_path / "other"), "--out", out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written (No space left" in line
    assert {path: path.read_bytes() for path in tmp_path.glob("*out.*")} == before


def test_unknown_command_names_the_known(capsys):
    assert main([]) == main(["nonsense"]) == 2
    assert "convert" in capsys.readouterr().err
