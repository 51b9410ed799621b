"""Only finished free relaxations become references; every other kind of file is told by content."""

import bz2
import gzip
import json
import lzma
import os
import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import (
    FixAtoms,
    FixBondLength,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixedLine,
    FixedPlane,
    FixInternals,
    FixScaled,
    FixSymmetry,
    Hookean,
)
from ase.filters import FrechetCellFilter
from ase.io.trajectory import Trajectory
from ase.optimize import BFGS

from benchmarks.data import load
from benchmarks.data.__main__ import main
from benchmarks.data.convert.inputs import ConvertOptions, find_inputs, read_input
from benchmarks.data.convert.relaxation import ConversionError
from tests.test_convert import archive, images, vasprun

CASES = Path(__file__).parent / "cases"


def steps_of(path, **options):
    return read_input(path, ConvertOptions(functional="pbe", **options)).relaxation.steps


def reason_of(path, **options):
    with pytest.raises(ConversionError) as raised:
        steps_of(path, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def written(tmp_path):
    """Writes ASE images, an archive or text under a name; gives the path."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, list):
            ase.io.write(path, content)
        elif isinstance(content, dict):
            path.write_text(json.dumps(content))
        else:
            path.write_text(content)
        return path

    return write


def frames(cells, energies=None, force=0.01, sites=0.5):
    """Images of NaCl in cubic cells; `sites` is Cl's fractional coordinate, in each or in all."""
    made = []
    places = np.broadcast_to(sites, len(cells))
    for i, (a, place) in enumerate(zip(cells, places, strict=True)):
        atoms = Atoms("NaCl", [[0, 0, 0], [a * place] * 3], cell=[a] * 3, pbc=True)
        known = {} if energies is None else {"energy": energies[i]}
        if force is not None:
            known["forces"] = [[force, 0, 0], [-force, 0, 0]]
        atoms.calc = SinglePointCalculator(atoms, **known)
        made.append(atoms)
    return made


# --- the cases ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("md_npt.traj", "not a relaxation: its header says molecular-dynamics"),
        ("eos_scan.extxyz", "no minimum: the last frame is 0.10 eV/atom above the lowest"),
        (
            "two_relaxations.extxyz",
            "several relaxations in one file: the cell jumps by 16 % and the energy by +0.76 eV/at",
        ),
        ("unfinished.extxyz", "not relaxed: forces up to 2 eV/Å at the end, more than 0.05"),
        ("vasprun_nsw_reached.xml", "unfinished: NSW = 3 ionic steps were reached"),
        ("not_converged_archive.json", "unfinished: NOMAD says is_converged_geometry: false"),
        ("vasprun_isif4.xml", "the volume was held fixed: ISIF = 4 (--keep constrained)"),
        ("vasprun_lvdw.xml", "functional that LeMat-Traj has not: LVDW = True"),
        ("fixed_plane.traj", "some sites were held fixed: FixedPlane (--keep constrained)"),
        ("helium.extxyz", "single frame"),
        ("no_elements.lammps-data", "its content is not known, and its name tells no format"),
        ("POSCAR_short", "its content is not known, and its name tells no format"),
    ],
)
def test_case_that_is_no_finished_free_relaxation(name, reason):
    assert reason_of(CASES / name).startswith(reason)


@pytest.mark.parametrize(
    ("name", "edges", "energy"),
    [
        ("blank_line_between.extxyz", [6.2, 6.0, 5.8, 5.7, 5.69], -6.54),
        ("vasprun.xml.relax1.gz", [5.8, 5.7, 5.69], -6.52),
        ("numbered_labels_archive.json", [5.8, 5.7, 5.69], -6.52),
    ],
)
def test_case_that_is_one(name, edges, energy):
    steps = steps_of(CASES / name)
    np.testing.assert_allclose([step.lattice[0, 0] for step in steps], edges, rtol=1e-9)
    assert {step.symbols for step in steps} == {("Na", "Cl")}
    assert steps[-1].energy == pytest.approx(energy, abs=1e-9)


def test_left_handed_cell_is_kept_as_it_is():
    left, right = (steps_of(CASES / f"{hand}_handed.extxyz")[-1] for hand in ("left", "right"))
    assert np.linalg.det(left.lattice) == pytest.approx(-np.linalg.det(right.lattice))


def test_folder_of_all_cases_gives_the_good_ones_and_a_line_for_each_other(tmp_path, capsys):
    out = tmp_path / "x.parquet"
    assert main(["convert", str(CASES), "--functional", "pbe", "--out", str(out)]) == 2
    said = capsys.readouterr().out
    assert "5 of 15 inputs, 15 frames" in said
    lines = [line for line in said.splitlines() if line.startswith(str(CASES))]
    assert len(lines) == 10  # CIF, POSCAR, parquet and text look like no relaxation
    dataset = load(str(out))
    assert (len(dataset), dataset.quarantined) == (5, ())
    assert main(["audit", str(out)]) == 0
    assert "| used by default | 5 |" in capsys.readouterr().out


# --- molecular dynamics -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.traj", "a.extxyz"])
def test_velocities_are_dynamics_whatever_the_header_says(written, name):
    moving = images()
    moving[1].set_momenta([[0.1, 0, 0], [-0.1, 0, 0]])
    assert reason_of(written(name, moving)).startswith(
        "not a relaxation: the sites of frame 1 have velocities"
    )


def test_velocities_of_zero_are_none(written):
    still = images()
    still[1].set_momenta(np.zeros((2, 3)))
    assert len(steps_of(written("a.traj", still))) == 3


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("temperature", (300, 310, 290), "the temperature changes"),
        ("ekin", (0.1, 0.2, 0.1), "frame 0 has ekin = 0.1"),
        ("md_step", (0, 1, 2), "frame 1 has md_step = 1"),
    ],
)
def test_what_only_dynamics_writes(written, key, values, said):
    moving = images()
    for atoms, value in zip(moving, values, strict=True):
        atoms.info[key] = value
    assert said in reason_of(written("a.extxyz", moving))


def test_energy_that_goes_up_and_down_is_no_relaxation(written):
    energies = [-6.0, -6.3, -6.1, -6.4, -6.2, -6.5, -6.2, -6.5, -6.3, -6.6]
    cells = 5.7 + 0.01 * np.random.default_rng(0).standard_normal(10)
    path = written("a.extxyz", frames(cells, energies))
    # over frames 5 to 9 it rises by 0.3 and 0.2 eV, of two atoms
    assert "rises by 0.25 eV/atom in all" in reason_of(path)
    assert len(steps_of(path, keep=["uphill"])) == 10


def test_velocities_in_an_archive(written):
    moving = archive()
    moving["run"][0]["system"][2]["atoms"]["velocities"] = [[0, 0, 0], [100.0, 0, 0]]
    assert "system 2 have velocities" in reason_of(written("archive.json", moving))


# --- scans, several relaxations, ends uphill ------------------------------------------------------


@pytest.mark.parametrize("factor", [[1, 1, 1], [1, 1, 0], [0, 0, 1]])
def test_scan_that_ends_at_its_lowest_energy_is_one_still(written, factor):
    made = []
    for i in range(5):
        atoms = frames([6.0], [-6.0 - 0.1 * i])[0]
        calc = atoms.calc
        atoms.set_cell(6.0 - 0.1 * i * np.array(factor), scale_atoms=True)
        atoms.calc = SinglePointCalculator(atoms, **calc.results)
        made.append(atoms)
    path = written("a.extxyz", made)
    assert reason_of(path).startswith("a scan: ")
    assert len(steps_of(path, keep=["uphill"])) == 5


def test_scan_by_even_volumes(written):
    cells = np.cbrt(np.linspace(220, 180, 5))
    path = written("a.extxyz", frames(cells, [-6.0, -6.1, -6.2, -6.25, -6.27]))
    assert reason_of(path).startswith("a scan: ")


@pytest.mark.parametrize(
    ("cells", "energies", "said"),
    [
        ((5.8, 5.7, 5.69, 6.6, 6.0, 5.6), (-6.5, -6.6, -6.61, -5.1, -6.5, -6.9), "at frame 3"),
        ((5.8, 5.7, 5.69, 6.9, 6.0, 5.6), None, "the cell jumps by 21 % at frame 3"),
        ((6.6, 6.5, 6.45, 5.8, 5.7, 5.69), (-5.1, -5.2, -5.25, -6.5, -6.6, -6.61), "at frame 3"),
        ((5.8, 5.7, 5.69, 5.8, 5.7, 5.69), None, "the first frame stands there again at frame 3"),
    ],
)
def test_several_relaxations_in_one_file_are_told_with_the_frame(written, cells, energies, said):
    path = written("a.extxyz", frames(cells, energies))
    reason = reason_of(path)
    assert reason.startswith("several relaxations in one file: ")
    assert said in reason
    assert len(steps_of(path, keep=["joined"])) == 6


def test_sites_that_jump_begin_another_relaxation(written):
    made = frames(
        (5.8, 5.7, 5.69, 5.69, 5.68), (-6.5, -6.6, -6.61, -5.1, -6.7), sites=(*[0.5] * 3, 0.3, 0.3)
    )
    assert "sites jump by 2.0 Å" in reason_of(written("a.extxyz", made))


def test_trial_steps_of_an_optimiser_are_no_other_relaxation(written):
    """VASP's conjugate gradients overshoot, by more than a volt per atom in real runs."""
    made = frames((5.8, 6.4, 5.7, 5.69), (-6.5, -5.1, -6.6, -6.61))
    assert len(steps_of(written("a.extxyz", made))) == 4


def test_end_above_the_start(written):
    path = written("a.extxyz", frames((5.7, 5.75, 5.76), (-6.5, -6.49, -6.48)))
    assert reason_of(path) == (
        "no minimum: the last frame is 0.01 eV/atom above the start (--keep uphill)"
    )
    assert len(steps_of(path, keep=["uphill"])) == 3


def test_energies_of_two_calculations_are_not_compared(written):
    two = archive()
    second = json.loads(json.dumps(two["run"][0]).replace("run/0", "run/1"))
    for calculation in second["calculation"]:
        calculation["energy"]["free"]["value"] += 3e-18
    two["run"].append(second)
    assert len(steps_of(written("archive.json", two), keep=["joined"])) == 6


# --- unfinished, not relaxed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"forces": [[0.06, 0, 0], [-0.06, 0, 0]]}, "forces up to 0.06 eV/Å"),
        ({"stress": [0, 0, 0.002, 0, 0, 0]}, "a stress of 3.2 kB at the end, more than 1"),
    ],
)
def test_what_the_audit_calls_not_relaxed_is_left_out(written, last, said):
    path = written("a.traj", [*images()[:2], *images((5.69,), energy=-6.7, **last)])
    assert said in reason_of(path)
    assert len(steps_of(path, keep=["unrelaxed"])) == 3
    assert len(steps_of(path, keep=["unfinished"])) == 3


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"NSW": 3, "EDIFFG": -0.02}, "before the forces were within EDIFFG = -0.02 eV/Å"),
        ({"NSW": 3, "EDIFFG": 0.001}, "before the energy changed by less than EDIFFG"),
        ({"NELM": 1, "NSW": 2, "EDIFFG": -0.01}, "NSW = 2 ionic steps"),
    ],
)
def test_steps_that_ran_out(written, tags, said):
    path = written("vasprun.xml", vasprun(parameters=tags))
    assert said in reason_of(path)
    assert len(steps_of(path, keep=["unfinished"])) == 3


@pytest.mark.parametrize("tags", [{"NSW": 3, "EDIFFG": -0.03}, {"NSW": 3, "EDIFFG": 0.2}])
def test_last_step_that_just_converged_is_no_stop(written, tags):
    assert len(steps_of(written("vasprun.xml", vasprun(parameters=tags)))) == 3


@pytest.mark.parametrize(
    ("steps", "fmax", "said"),
    [
        (2, 1e-6, "2 steps of the optimiser were reached with forces of "),
        (0, None, "the optimiser stopped with forces of "),
        (None, 0.04, None),
    ],
)
def test_optimiser_of_ase_that_did_not_reach_its_criterion(tmp_path, steps, fmax, said):
    """Real trajectories of ASE; the second one was cut off."""
    atoms = bulk("Cu", a=3.7, cubic=True)
    atoms.positions[0] += [0.05, 0.02, 0.0]
    atoms.calc = EMT()
    path = tmp_path / "a.traj"
    optimiser = BFGS(FrechetCellFilter(atoms), trajectory=str(path), logfile=None)
    optimiser.run(fmax=fmax or 0.001, steps=steps or 100)
    if steps == 0:
        with Trajectory(path) as whole:
            header, some = whole.description, [whole[i] for i in range(3)]
        with Trajectory(path, "w") as cut:
            cut.set_description(header)
            for image in some:
                cut.write(image)
    if said is None:
        assert len(steps_of(path, keep=["unrelaxed"])) > 3
        return
    assert reason_of(path).startswith(f"unfinished: {said}")
    assert reason_of(path).endswith("(--keep unfinished)")


def test_electrons_that_did_not_converge_in_the_last_step(written):
    text = vasprun(parameters={"NELM": 2})
    one = '<scstep><energy><i name="e_fr_energy"> -1.0 </i></energy></scstep>'
    at = text.rindex(one)
    path = written("vasprun.xml", text[:at] + one + text[at:])
    assert "NELM = 2 electronic steps were reached" in reason_of(path)


def test_archive_of_the_older_schema_says_that_it_did_not_converge(written):
    said = archive()
    said["workflow2"] = {}
    said["workflow"] = [
        {"type": "geometry_optimization", "geometry_optimization": {"is_converged_geometry": False}}
    ]
    assert "is_converged_geometry: false" in reason_of(written("archive.json", said))


def test_steps_that_ran_out_in_an_archive(written):
    said = archive()
    said["run"][0]["method"][0]["x_vasp_incar_out"] = {"NSW": 3, "EDIFFG": -0.01, "ISIF": 3}
    assert "NSW = 3 ionic steps" in reason_of(written("archive.json", said))


# --- constraints ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "constraint",
    [
        FixAtoms([0]),
        FixedPlane(0, [0, 0, 1]),
        FixedLine([0, 1], [0, 0, 1]),
        FixBondLength(0, 1),
        FixBondLengths([[0, 1]]),
        FixInternals(bonds=[[5.0, [0, 1]]]),
        FixCartesian(0, mask=[True, False, False]),
        FixScaled([0], mask=[True, False, False]),
        Hookean(0, 1, 5.0, rt=5.0),
    ],
    ids=lambda constraint: type(constraint).__name__,
)
def test_sites_that_were_not_free(written, constraint):
    held = images()
    for atoms in held:
        atoms.set_constraint(constraint)
    path = written("a.traj", held)
    name = type(constraint).__name__
    reason = reason_of(path)
    assert reason.startswith("some sites were held fixed: ")
    assert name in reason or name == "FixBondLength"  # which ASE writes as FixBondLengths
    assert len(steps_of(path, keep=["constrained"])) == 3


def test_constraints_that_take_nothing_from_a_free_relaxation(written):
    for number, make in enumerate((FixSymmetry, lambda _: FixCom(), lambda _: FixAtoms([]))):
        free = images()
        for atoms in free:
            atoms.set_constraint(make(atoms))
        assert len(steps_of(written(f"{number}.traj", free))) == 3


@pytest.mark.parametrize(
    ("column", "values", "held"),
    [
        ("move_mask", ("F", "T"), True),
        ("move_mask", ("T", "T"), False),
        ("move_mask", ("T T F", "T T T"), True),
        ("fixed", ("T", "F"), True),
        ("selective_dynamics", ("T T T", "T T F"), True),
    ],
)
def test_columns_that_hold_sites(written, column, values, held):
    text = ""
    for a, energy in ((5.8, -6.5), (5.7, -6.6)):
        text += (
            f'2\nLattice="{a} 0 0 0 {a} 0 0 0 {a}" Properties=species:S:1:pos:R:3:{column}:L:'
            f"{len(values[0].split())} energy={energy}\nNa 0 0 0 {values[0]}\n"
            f"Cl {a / 2} {a / 2} {a / 2} {values[1]}\n"
        )
    path = written("a.extxyz", text)
    if held:
        assert reason_of(path).startswith("some sites were held fixed")
    else:
        assert len(steps_of(path)) == 2


@pytest.mark.parametrize("isif", [0, 1, 2, 4, 5, 6, 7, 8])
def test_only_isif_3_is_free(written, isif):
    path = written("vasprun.xml", vasprun(parameters={"ISIF": isif}))
    assert reason_of(path).endswith(f"held fixed: ISIF = {isif} (--keep constrained)")
    said = archive()
    said["run"][0]["method"][0]["x_vasp_incar_out"] = {"ISIF": isif}
    assert f"ISIF = {isif}" in reason_of(written("archive.json", said))


def test_volume_that_never_changes_was_held(written):
    made = []
    for i, a in enumerate((5.8, 5.75, 5.74)):
        cell = [a, a, 200.0 / a**2]
        atoms = Atoms("NaCl", cell=cell, pbc=True, scaled_positions=[[0, 0, 0], [0.5] * 3])
        atoms.calc = SinglePointCalculator(atoms, energy=-6.5 - 0.01 * i)
        made.append(atoms)
    assert reason_of(written("a.extxyz", made)).startswith("the volume was held fixed")


# --- forces of another kind -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"LVDW": True}, "functional that LeMat-Traj has not: LVDW = True"),
        ({"IVDW_NL": 1}, "functional that LeMat-Traj has not: IVDW_NL = 1"),
        ({"ML_LMLFF": True}, "forces that were machine-learned: ML_LMLFF = True"),
        ({"ML_MODE": "run"}, "forces that were machine-learned: ML_MODE = "),
        ({"EFIELD": 0.1}, "relaxed in an electric field: EFIELD = 0.1"),
        ({"EFIELD_PEAD": [0.1, 0.0, 0.0]}, "relaxed in an electric field: EFIELD_PEAD"),
        ({"IMAGES": 5}, "not a relaxation: a path between states: IMAGES = 5"),
        ({"LSOL": True}, "relaxed in a solvent: LSOL = True"),
    ],
)
def test_tags_of_another_calculation(written, tags, said):
    assert reason_of(written("vasprun.xml", vasprun(incar=tags))).startswith(said)


def test_tags_that_are_off_are_no_other_calculation(written):
    off = {"LVDW": False, "ML_LMLFF": False, "EFIELD": 0.0, "EFIELD_PEAD": [0.0] * 3, "IMAGES": 0}
    assert len(steps_of(written("vasprun.xml", vasprun(incar=off, parameters=off)))) == 3


@pytest.mark.parametrize("name", ["chgnetcalculator", "macecalculator", "dftd3", "lennardjones"])
def test_energies_of_a_potential(written, name):
    made = images()
    for atoms in made:
        atoms.calc.name = name
    reason = reason_of(written("a.traj", made))
    assert reason == f"energies of the calculator {name}, which is not DFT alone"


def test_potential_that_an_extended_xyz_names(written):
    made = images()
    for atoms in made:
        atoms.info["calculator"] = "MACE-MP-0"
    assert "calculator mace-mp-0" in reason_of(written("a.extxyz", made))


def test_electric_field_and_pressure_in_an_extended_xyz(written):
    for key, value in (("electric_field", [0, 0, 0.1]), ("external_pressure", 1.0)):
        made = images()
        for atoms in made:
            atoms.info[key] = value
        assert reason_of(written("a.extxyz", made)).startswith(f"relaxed under {key}")


# --- lines of an extended XYZ file ----------------------------------------------------------------


def salt_text(symbols=("Na", "Cl"), properties="species:S:1:pos:R:3"):
    text = ""
    for a in (5.8, 5.7, 5.69):
        text += (
            f'2\nLattice="{a} 0 0 0 {a} 0 0 0 {a}" Properties={properties}\n'
            f"{symbols[0]} 0 0 0\n{symbols[1]} {a / 2} {a / 2} {a / 2}\n"
        )
    return text


@pytest.mark.parametrize("between", ["\n", "\n\n \n", "\r\n"])
def test_blank_lines_between_frames_cost_none(written, between):
    text = salt_text().replace("2\nLattice", f"{between}2\nLattice") + between
    assert len(steps_of(written("a.extxyz", text))) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (salt_text().replace("\nCl 2.85", "\n\nCl 2.85"), "line 8: blank where an atom of frame 1"),
        (salt_text() + "the end\n", "line 13: 'the end' where the number of atoms of frame 3"),
        (salt_text().replace("Na 0 0 0", "Na 0 0 x", 1), "frame 0, from line 1: "),
        (salt_text(properties="species:S:1:pos:R:999999999999"), "line 3: 4 columns, fewer than"),
        (salt_text(("Na1", "Cl2")), "frame 0, from line 1: 'Na1' is no element"),
        (salt_text().replace("\nCl 2.85 2.85", "\nCl 2.85"), "frame 1, from line 5: "),
    ],
)
def test_line_that_belongs_to_no_frame_is_named(written, text, said):
    assert said in reason_of(written("a.extxyz", text))


def test_file_that_breaks_off_within_a_frame_is_unfinished(written):
    path = written("a.extxyz", "\n".join(salt_text().splitlines()[:-1]))
    assert reason_of(path) == (
        "unfinished: breaks off in frame 2, which begins at line 9 (--keep unfinished)"
    )
    assert len(steps_of(path, keep=["unfinished"])) == 2


def test_deuterium_and_tritium_are_hydrogen(written):
    steps = steps_of(written("a.extxyz", salt_text(("D", "T"))))
    assert {step.symbols for step in steps} == {("H", "H")}
    said = archive()
    for system in said["run"][0]["system"]:
        system["atoms"] |= {"labels": ["D", "T"], "species": None}
    assert steps_of(written("archive.json", said))[0].symbols == ("H", "H")
    text = vasprun().replace("<c>Na</c>", "<c>D</c>")
    assert steps_of(written("vasprun.xml", text))[0].symbols == ("H", "Cl")


# --- labels of an archive -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "species", "said"),
    [
        (["Na1", "Cl2"], None, "unknown element: site 0 has the label 'Na1'"),
        (["Na", "Cl_d"], [11], "unknown element: site 1 has the label 'Cl_d'"),
        (["Na", "Cl"], [11, 9], "site 1 has the label 'Cl' and the atomic number of F"),
    ],
)
def test_label_that_names_no_element_or_another(written, labels, species, said):
    made = archive()
    for system in made["run"][0]["system"]:
        system["atoms"] |= {"labels": labels, "species": species}
    assert reason_of(written("archive.json", made)).startswith(said)


# --- names and content ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("vasprun.xml", bytes),
        ("vasprun.xml.gz", gzip.compress),
        ("vasprun.xml.relax1.gz", gzip.compress),
        ("vasprun.relax2.xml.bz2", bz2.compress),
        ("vasprun.xml.orig.xz", lzma.compress),
        ("vasprun.xml.gz.1", gzip.compress),
        ("vasprun.xml", gzip.compress),
        ("run_7", bytes),
        ("relaxed.traj", bytes),
    ],
)
def test_vasprun_is_found_in_a_folder_whatever_its_name(tmp_path, name, compress):
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / name
    path.write_bytes(compress(vasprun().encode()))
    (tmp_path / "INCAR").write_text("NSW = 99\n")
    (tmp_path / "POSCAR").write_text("2\n1.0\n")
    assert find_inputs([tmp_path], None) == [path]
    assert find_inputs([tmp_path], "extxyz") == [tmp_path]
    assert len(steps_of(path)) == 3


def test_tag_that_is_no_utf_8_does_not_cost_the_file(tmp_path):
    text = vasprun(incar={"SYSTEM": "Å"})
    path = tmp_path / "vasprun.xml"
    path.write_bytes(text.encode("latin-1"))
    assert len(steps_of(path)) == 3


def test_other_formats_are_told_by_content_too(tmp_path, written):
    for name, content, form in (
        ("a.extxyz", images(), "extxyz"),
        ("a.traj", images(), "traj"),
        ("a_archive.json", archive(), "nomad"),
    ):
        path = shutil.move(written(name, content), tmp_path / f"run-{form}")
        assert read_input(path, ConvertOptions(functional="pbe")).material.startswith(form)


def test_bad_file_does_not_cost_the_good_one_and_the_status_says_it(tmp_path, capsys, written):
    good = written("good.extxyz", images())
    bad = written("bad.extxyz", "2\nnonsense\n")
    (tmp_path / "nothing").mkdir()
    paths = [bad, tmp_path / "missing.xyz", tmp_path / "nothing", good]
    out = tmp_path / "x.parquet"
    command = ["convert", *map(str, paths), "--functional", "pbe", "--out", str(out)]
    assert main(command) == 2
    said = capsys.readouterr().out
    assert "missing.xyz  no such file or folder" in said
    assert "1 of 4 inputs, 3 frames" in said
    assert len(load(str(out))) == 1


def test_odd_names_of_files_cost_nothing_and_stay_on_one_line(tmp_path, capsys, written):
    good = written("good.extxyz", images())
    odd = [tmp_path / os.fsdecode(b"n\xff.extxyz"), tmp_path / "new\nline.extxyz"]
    for number, path in enumerate(odd):
        ase.io.write(path, images((5.9 + number, 5.7)), format="extxyz")
    bad = tmp_path / os.fsdecode(b"bad\xff\n.extxyz")
    bad.write_text("2\n")
    long = tmp_path / ("a" * 300)
    out = str(tmp_path / "x.parquet")
    command = ["convert", *map(str, (good, *odd, bad, long)), "--functional", "pbe", "--out", out]
    assert main(command) == 2
    said = capsys.readouterr().out
    assert "bad\ufffd\ufffd.extxyz" in said
    assert "3 of 5 inputs" in said
    assert said.replace("\n", "").isprintable()
    assert len((tmp_path / "x.settings.csv").read_text(encoding="utf-8").splitlines()) == 4


def test_same_content_twice_is_no_failure(tmp_path, written):
    first = written("a.extxyz", images())
    second = shutil.copy(first, tmp_path / "b.extxyz")
    out = str(tmp_path / "x.parquet")
    command = ["convert", str(first), str(second), "--functional", "pbe", "--out", out]
    assert main(command) == 0


@pytest.mark.parametrize("name", ["vasprun.xml", "archive.json", "a.extxyz", "a.traj"])
def test_no_message_has_the_words_of_python(tmp_path, name):
    path = tmp_path / name
    for content in (b"\x00\xff\xfenonsense", b"", b"{}", b"<modeling></modeling>", b"1\n\nX"):
        path.write_bytes(content)
        reason = reason_of(path)
        assert "Error" not in reason
        assert "object" not in reason
