"""The relaxers to compare with: each keeps the contract, and none of them flatters itself."""

import json
import zipfile

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.mixing import AverageCalculator
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from baselines import gbr, train
from baselines.engines.ase_engine import AseRelaxer
from baselines.potentials import chgnet, mace
from baselines.training import potential_training as labelled
from baselines.trivial import (
    BondBalance,
    GradientBoosting,
    Idealise,
    Identity,
    MeanDelta,
    VolumeScaling,
)
from benchmarks.core import GPA, Geometry, Relaxed, RelaxSettings, Status, UserError
from benchmarks.testing import ZeroForce, assert_same, check_relaxer, sample_structures

FCC = Lattice([[0, 2, 2], [2, 0, 2], [2, 2, 0]])


@pytest.fixture(scope="module")
def boosting():
    return GradientBoosting()


@pytest.fixture(scope="module")
def chgnet_relaxer():
    pytest.importorskip("chgnet")
    return chgnet.CHGNet()


@pytest.fixture(scope="module")
def mace_relaxer():
    pytest.importorskip("mace")
    return mace.Mace()


class Oracle:
    """Returns the answers it was given: what the metrics call perfect."""

    def __init__(self, finals):
        self.finals = dict(finals)

    def relax(self, structures, /):
        answers = [self.finals[structure.formula] for structure in structures]
        return [Relaxed(status=Status.OK, structure=answer.copy()) for answer in answers]


def copper(a=3.6):
    return Structure(Lattice.cubic(a), ["Cu"] * 4, FCC_SITES)


def salt(cation="Na", anion="Cl", a=5.69):
    return Structure(Lattice(FCC.matrix * a / 4), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


FCC_SITES = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


# --- the contract, one line each


def test_identity_keeps_the_contract():
    check_relaxer(Identity(), tolerance=0)


def test_mean_delta_keeps_the_contract():
    check_relaxer(MeanDelta(), tolerance=0)


def test_volume_scaling_keeps_the_contract():
    check_relaxer(VolumeScaling(), tolerance=1e-12)


def test_gbr_keeps_the_contract(boosting):
    check_relaxer(boosting, tolerance=1e-12)


def test_zero_force_mock_keeps_the_contract():
    check_relaxer(AseRelaxer(ZeroForce), tolerance=0)


def test_oracle_keeps_the_contract():
    inputs = sample_structures()[:4]
    answers = {structure.formula: structure.copy() for structure in inputs}
    for answer in answers.values():
        answer.scale_lattice(1.1 * answer.volume)
    check_relaxer(Oracle(answers), inputs, tolerance=0)


def test_emt_keeps_the_contract():
    check_relaxer(AseRelaxer(EMT), [copper(), copper(3.7), Structure(FCC, ["Al"], [[2, 0, -1]])])


@pytest.mark.slow
def test_chgnet_keeps_the_contract(chgnet_relaxer):
    outcomes = check_relaxer(chgnet_relaxer)
    assert [outcome.status for outcome in outcomes] == [Status.OK] * len(outcomes)


@pytest.mark.slow
def test_mace_keeps_the_contract(mace_relaxer):
    outcomes = check_relaxer(mace_relaxer)
    assert {outcome.status for outcome in outcomes} <= {Status.OK, Status.UNCONVERGED}


# --- trivial


def test_mean_delta_scales_lengths_and_leaves_angles_and_sites(tmp_path):
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"log_strain": float(np.log(1.1))}))
    start = Structure(Lattice.from_parameters(3, 4, 5, 80, 95, 110), ["Na"], [[1.3, -0.2, 0.5]])
    (outcome,) = MeanDelta(card).relax([start])
    expected = (3.3, 4.4, 5.5, 80, 95, 110)
    assert outcome.structure.lattice.parameters == pytest.approx(expected, abs=1e-12)
    assert (outcome.structure.frac_coords == start.frac_coords).all()


def test_committed_mean_delta_names_what_it_was_fitted_on():
    card = json.loads(train.trivial.MEAN_DELTA.read_text())
    assert card["n"] == 25705
    assert [data["name"] for data in card["training_data"]] == [
        "substitution/train",
        "embedded-v1/train",
    ]
    assert abs(card["log_strain"]) < 0.01


def test_volume_scaling_says_so_when_it_cannot_predict():
    lonely = Structure(Lattice.cubic(40), ["Na"], [[0, 0, 0]])
    (outcome,) = VolumeScaling().relax([lonely])
    assert outcome.status is Status.UNSUPPORTED
    assert "bonds" in outcome.detail


def test_volume_scaling_without_electronegativity_is_no_nan_volume():
    (outcome,) = VolumeScaling().relax([Structure(FCC, ["Ar", "Na"], [[0, 0, 0], [0.5, 0.5, 0.5]])])
    assert outcome.status is Status.UNSUPPORTED


# --- gradient boosting


@given(
    st.lists(st.floats(2.5, 9.0), min_size=3, max_size=3),
    st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3),
)
@settings(max_examples=50, deadline=None)
def test_noise_in_the_regression_breaks_no_symmetry(lengths, noise):
    cubic = Geometry.of(Structure(Lattice.cubic(4.2), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]))
    wanted = np.array([*lengths, *(90 + 20 * np.array(noise))])
    cell = gbr.apply(wanted, cubic.lattice, gbr.point_group(cubic))
    a = np.linalg.norm(cell, axis=1)
    assert a == pytest.approx([a[0]] * 3, rel=1e-12)
    assert np.abs(cell @ cell.T - np.diag(a**2)).max() < 1e-9


@given(
    st.lists(st.floats(2.5, 9.0), min_size=3, max_size=3),
    st.lists(st.floats(75.0, 105.0), min_size=3, max_size=3),
)
@settings(max_examples=50, deadline=None)
def test_without_symmetry_the_predicted_cell_is_the_cell(lengths, angles):
    start = np.array([[3.0, 0, 0], [0.4, 4, 0], [-0.7, 0.2, 5]])
    cell = gbr.apply(np.array([*lengths, *angles]), start, np.eye(3, dtype=int)[None])
    assert Lattice(cell).parameters == pytest.approx((*lengths, *angles), abs=1e-8)


def test_gbr_gives_equal_axes_equal_lengths(boosting):
    hexagonal = sample_structures()[5]
    tilted = Structure(FCC, ["K", "I"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    layered, rocksalt = (o.structure.lattice for o in boosting.relax([hexagonal, tilted]))
    assert layered.a == pytest.approx(layered.b, rel=1e-12)
    assert layered.angles == pytest.approx((90, 90, 120), abs=1e-9)
    assert rocksalt.abc == pytest.approx([rocksalt.a] * 3, rel=1e-12)
    assert rocksalt.angles == pytest.approx((60, 60, 60), abs=1e-9)


def test_gbr_learns_more_than_the_mean(boosting):
    small = salt("K", "I", 5.69)  # NaCl's; 7.11 Å in DFT
    (outcome,) = boosting.relax([small])
    assert 1.15 < outcome.structure.lattice.a / small.lattice.a < 1.30


def test_gbr_refuses_a_file_with_foreign_types(tmp_path):
    from skops.io import dump

    dump({"volume": Lattice.cubic(3)}, tmp_path / "evil.skops")
    with pytest.raises(UserError, match="not trusted"):
        gbr.load(tmp_path / "evil.skops")


def test_gbr_beyond_plutonium_is_unsupported(boosting):
    (outcome,) = boosting.relax([Structure(FCC, ["Am"], [[0, 0, 0]])])
    assert outcome.status is Status.UNSUPPORTED


# --- through ASE


def test_mock_equals_identity_to_the_last_bit():
    structures = sample_structures()
    for still, same in zip(
        AseRelaxer(ZeroForce).relax(structures), Identity().relax(structures), strict=True
    ):
        assert still.status is Status.OK
        assert_same(Geometry.of(still.structure), Geometry.of(same.structure), 0.0, "moved")


def test_mixed_calculators_of_ase_work_too():
    """They lack half of the methods that single calculators have."""
    both = AverageCalculator([EMT(), EMT()])
    mixed, single = (AseRelaxer(c).relax([copper(3.7)])[0] for c in (both, EMT()))
    assert_same(Geometry.of(mixed.structure), Geometry.of(single.structure), 1e-9, "differ")


class Counting(EMT):
    """EMT that counts how often it is really evaluated."""

    evaluations = 0

    def calculate(self, *args, **kwargs):
        type(self).evaluations += 1
        super().calculate(*args, **kwargs)


def test_converged_means_force_and_stress_at_the_returned_structure():
    start = copper(3.9)
    start.translate_sites([1], [0.02, 0.01, -0.03])
    (outcome,) = AseRelaxer(EMT, settings=RelaxSettings(fmax=0.01)).relax([start])
    assert outcome.status is Status.OK
    final = Geometry.of(outcome.structure)
    atoms = Atoms(final.numbers, cell=final.lattice, scaled_positions=final.frac_coords, pbc=True)
    atoms.calc = EMT()
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() == pytest.approx(outcome.max_force)
    assert np.abs(atoms.get_stress()).max() == pytest.approx(outcome.max_stress, abs=1e-9)
    assert outcome.max_force <= 0.01
    assert outcome.max_stress <= 0.1 * GPA
    assert outcome.energy == pytest.approx(atoms.get_potential_energy())
    assert outcome.structure.volume ** (1 / 3) == pytest.approx(3.59, abs=0.01)


def test_small_forces_under_stress_are_not_converged():
    """By symmetry no force acts on a strained fcc crystal: forces alone would call it relaxed."""
    (outcome,) = AseRelaxer(EMT, settings=RelaxSettings(max_steps=0)).relax([copper(3.9)])
    assert outcome.status is Status.UNCONVERGED
    assert outcome.max_force < 1e-9
    assert outcome.n_force_evals == 1


def test_force_evaluations_are_those_that_happened():
    Counting.evaluations = 0
    (outcome,) = AseRelaxer(Counting).relax([copper(3.8)])
    assert outcome.n_force_evals == Counting.evaluations
    assert outcome.n_force_evals > 3


def test_atoms_outside_the_cell_stay_there():
    start = copper(3.7)
    start.translate_sites([0], [-3, 5, 1], to_unit_cell=False)
    (outcome,) = AseRelaxer(EMT).relax([start])
    assert outcome.structure.frac_coords[0] == pytest.approx([-3, 5, 1], abs=1e-6)


class Pressure(Calculator):
    """Constant stress and no resistance; nan once `until` evaluations have passed."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, stress, until=10**9):
        super().__init__()
        self.stress, self.until, self.count = stress, until, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.count += 1
        energy = 0.0 if self.count <= self.until else np.nan
        stress = np.array([self.stress] * 3 + [0.0] * 3)
        self.results = {"energy": energy, "forces": np.zeros((len(atoms), 3)), "stress": stress}


@pytest.mark.parametrize("stress", [-5.0, 5.0])
def test_exploding_and_collapsing_cells_are_invalid(stress):
    (outcome,) = AseRelaxer(Pressure(stress)).relax([copper()])
    assert outcome.status is Status.INVALID
    assert "volume changed" in outcome.detail
    assert len(outcome.structure) == 4


def test_nan_from_a_potential_is_invalid_not_converged():
    (outcome,) = AseRelaxer(Pressure(0.05, until=2)).relax([copper()])
    assert outcome.status is Status.INVALID
    assert "not finite" in outcome.detail
    assert np.isfinite(Geometry.of(outcome.structure).lattice).all()


def test_elements_without_parameters_are_unsupported_and_named():
    relaxer = AseRelaxer(ZeroForce, elements=[11])
    (outcome,) = relaxer.relax([Structure(FCC, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])])
    assert outcome == Relaxed(status=Status.UNSUPPORTED, detail="no parameters for Cl")


def test_mixed_sites_are_unsupported():
    mixed = Structure(FCC, [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    assert AseRelaxer(ZeroForce).relax([mixed])[0].status is Status.UNSUPPORTED


def test_factory_by_name_and_its_misspellings():
    assert isinstance(AseRelaxer("ase.calculators.emt:EMT").calculator, EMT)
    for name in ("ase.calculators.emt", "no.such:thing", "ase.calculators.emt:EMTT", "", ":x"):
        with pytest.raises(UserError, match="calculator factory"):
            AseRelaxer(name)


# --- potentials


def finite_difference_stress(calculator, structure, step):
    """Pressure part of the stress from energies [eV/Å^3], and what the calculator says."""
    geometry = Geometry.of(structure)
    atoms = Atoms(
        geometry.numbers, cell=geometry.lattice, scaled_positions=geometry.frac_coords, pbc=True
    )
    atoms.calc = calculator
    said, energies = atoms.get_stress()[:3].mean(), []
    for stretch in (1 - step, 1 + step):
        atoms.set_cell(geometry.lattice * stretch, scale_atoms=True)
        energies.append(atoms.get_potential_energy())
    # dE/d(ln a) = 3 V p, with the sign of ASE's stress
    return np.diff(energies)[0] / (2 * step) / (3 * structure.volume), said


@pytest.mark.slow
def test_chgnet_stress_is_the_derivative_of_its_energy(chgnet_relaxer):
    """GPa taken for eV/Å^3 would be off by 160, and the sign decides which way cells go."""
    compressed = Structure(FCC, ["Al"], [[0, 0, 0]])
    compressed.scale_lattice(15.0)
    derivative, said = finite_difference_stress(chgnet_relaxer.calculator, compressed, 0.005)
    assert said == pytest.approx(derivative, rel=0.03)
    assert said < -0.01


@pytest.mark.slow
def test_chgnet_finds_the_lattice_constant_of_salt(chgnet_relaxer):
    start = Structure(FCC, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    start.scale_lattice(5.3**3 / 4)
    (outcome,) = chgnet_relaxer.relax([start])
    assert outcome.status is Status.OK
    assert outcome.structure.lattice.a * 2**0.5 == pytest.approx(5.68, abs=0.06)
    assert outcome.energy == pytest.approx(-2 * 3.67, abs=0.02)


@pytest.mark.slow
def test_chgnet_with_isolated_atoms_answers(chgnet_relaxer, capfd):
    lonely = Structure(Lattice.cubic(15), ["H"], [[0, 0, 0]])
    (outcome,) = chgnet_relaxer.relax([lonely])
    assert outcome.status is Status.OK
    assert outcome.n_force_evals == 1
    assert capfd.readouterr().out == ""


def test_chgnet_weights_are_in_the_wheel():
    pytest.importorskip("chgnet")
    assert chgnet.weights().name == "chgnet_0.3.0_e29f68s314m37.pth.tar"


@pytest.mark.slow
def test_mace_stress_is_the_derivative_of_its_energy(mace_relaxer):
    start = sample_structures()[3]
    derivative, said = finite_difference_stress(mace_relaxer.calculator, start, 1e-4)
    assert said == pytest.approx(derivative, rel=1e-3)


@pytest.mark.slow
def test_mace_without_training_on_an_element_does_not_guess(mace_relaxer):
    (outcome,) = mace_relaxer.relax([Structure(FCC, ["Po"], [[0, 0, 0]])])
    assert outcome == Relaxed(status=Status.UNSUPPORTED, detail="no parameters for Po")


@pytest.mark.parametrize(
    ("model", "file", "cached"),
    [
        (
            "mace-mp-0-small",
            "2023-12-10-mace-128-L0_energy_epoch-249.model",
            "20231210mace128L0_energy_epoch249model",
        ),
        ("mace-mp-0-large", "MACE_MPtrj_2022.9.model", "MACE_MPtrj_20229model"),
        ("mace-mp-0", "2023-12-03-mace-128-L1_epoch-199.model", "20231203mace128L1_epoch199model"),
        ("mace-mpa-0", "mace-mpa-0-medium.model", "macempa0mediummodel"),
        ("mace-omat-0", "mace-omat-0-medium.model", "maceomat0mediummodel"),
    ],
)
def test_missing_published_weights_say_what_to_fetch_and_where_to_put_it(
    model, file, cached, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError) as caught:
        mace.weights(model, offline=True)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        file,
        "github.com/ACEsuit/mace-foundations/releases",
        str(tmp_path / "mace" / cached),
    ):
        assert part in message
    (tmp_path / "mace").mkdir()
    with zipfile.ZipFile(tmp_path / "mace" / cached, "w") as archive:
        archive.writestr("data.pkl", "")
    assert mace.weights(model, offline=True) == tmp_path / "mace" / cached
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_without_network_the_download_fails_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip("mace")

    def unreachable(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(UserError, match=r"cannot be downloaded \(Network is unreachable\)"):
        mace.weights("mace-mp-0")


def test_a_mace_checkpoint_that_is_not_there():
    with pytest.raises(UserError, match="no such file"):
        mace.weights("nowhere/my.model")


# --- fitting


def test_training_on_nothing_is_an_error_of_one_line(tmp_path, capsys):
    code = train.main(["mean-delta", "--data", str(tmp_path / "absent.parquet")])
    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_mean_delta_of_one_pair(tmp_path, write_lemat, lemat_frame):
    start, end = copper(3.0), copper(3.3)
    path = write_lemat(tmp_path / "one.parquet", [lemat_frame(start), lemat_frame(end, step=1)])
    out = tmp_path / "card.json"
    assert train.main(["mean-delta", "--data", str(path), "--out", str(out)]) == 0
    card = json.loads(out.read_text())
    assert card["log_strain"] == pytest.approx(0.0953101798)
    assert card["n"] == 1
    assert card["training_data"][0]["revision"].startswith("sha256:")


def test_a_limit_takes_so_many_relaxations_and_no_more(tmp_path, write_lemat, lemat_frame):
    rows = [
        lemat_frame(copper(a), f"mp-{i}", step)
        for i in range(5)
        for step, a in enumerate((3.0, 3.1, 3.3))
    ]
    path, out = str(write_lemat(tmp_path / "five.parquet", rows)), tmp_path / "card.json"
    arguments = ["mean-delta", "--data", path, "--data", "embedded", "--out", str(out)]
    assert train.main([*arguments, "--limit", "2"]) == 0
    card = json.loads(out.read_text())
    assert card["n"] == 4
    assert [data["n"] for data in card["training_data"]] == [2, 2]
    assert len(list(labelled.frames_of(path, None, limit=2))) == 6


@pytest.mark.parametrize(
    "wrong",
    [
        ["mean-delta", "--data", "embedded", "--limit", "0"],
        ["gnn-delta", "--data", "embedded", "--epochs", "-1"],
        ["mace", "--epochs", "0"],
        ["tensornet-embedded", "--seed", "-1"],
    ],
)
def test_a_number_that_means_nothing_is_refused_at_once(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        train.main(wrong)
    assert stopped.value.code == 2
    assert "is not a whole number" in capsys.readouterr().err


def test_a_missing_gpu_and_a_card_in_the_models_place_are_told_before_training(tmp_path, capsys):
    card = ["gnn-delta", "--data", "embedded", "--out", str(tmp_path / "x.json")]
    assert train.main(card) == 2
    assert "the card beside the model ends in .json" in capsys.readouterr().err
    import torch

    if not torch.cuda.is_available():
        assert train.main(["tensornet-embedded", "--device", "cuda"]) == 2
        assert "no GPU" in capsys.readouterr().err


def test_gbr_survives_saving(tmp_path):
    pairs = [(salt(a=a), salt(a=5.7)) for a in np.linspace(5.2, 6.3, 60)]
    model = gbr.fit(pairs, gbr.BoostingSettings(max_iter=20, learning_rate=0.3))
    gbr.save(model, tmp_path / "small.skops")
    again = gbr.load(tmp_path / "small.skops")
    (cell,) = again.lattices([salt(a=5.4)])
    assert (cell == model.lattices([salt(a=5.4)])[0]).all()
    assert cell[0, 1] == pytest.approx(5.7 / 2, abs=0.05)


def test_idealise_gives_a_displaced_crystal_its_symmetry_back():
    rng = np.random.default_rng(0)
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0] * 3, [0.5] * 3]
    )
    lattice = salt.lattice.matrix @ (np.eye(3) + rng.normal(0, 0.01, (3, 3)))
    moved = salt.frac_coords + rng.normal(0, 0.02, (8, 3))
    start = Structure(lattice, salt.species, moved)
    assert SpacegroupAnalyzer(start).get_space_group_number() == 1
    (found,) = Idealise().relax([start])
    assert found.structure.species == start.species
    assert SpacegroupAnalyzer(found.structure, 1e-6).get_space_group_number() == 225
    shift = found.structure.frac_coords - salt.frac_coords
    assert np.abs(shift - shift.mean(axis=0)).max() < 1e-9
    assert found.structure.volume == pytest.approx(start.volume, rel=0.01)


def test_an_atom_between_two_others_goes_to_their_middle():
    """In a chain of two species a site has two bonds; balance is where they are equally long."""
    chain = Structure(np.diag([4.0, 9.0, 9.0]), ["Na", "Cl"], [[0, 0, 0], [0.47, 0, 0]])
    found = chain
    for _ in range(60):
        (answer,) = BondBalance(1.0).relax([found])
        found = answer.structure
    assert np.allclose(found.lattice.matrix, chain.lattice.matrix)
    apart = found.frac_coords[1] - found.frac_coords[0]
    assert apart == pytest.approx([0.5, 0, 0], abs=1e-4)
    centre = chain.frac_coords.mean(axis=0)
    assert found.frac_coords.mean(axis=0) == pytest.approx(centre, abs=1e-12)


def test_bonds_of_a_symmetric_crystal_are_balanced():
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0] * 3, [0.5] * 3]
    )
    (found,) = BondBalance().relax([salt])
    assert np.allclose(found.structure.frac_coords, salt.frac_coords, atol=1e-10)


def test_balanced_bonds_bring_a_displaced_crystal_nearer_to_its_place():
    rng = np.random.default_rng(0)
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0] * 3, [0.5] * 3]
    )
    moves = rng.normal(0, 0.1, (8, 3))
    moves -= moves.mean(axis=0)
    start = Structure(salt.lattice, salt.species, salt.frac_coords + moves / 5.7)
    (found,) = BondBalance().relax([start])
    left = (found.structure.frac_coords - salt.frac_coords) * 5.7
    assert np.linalg.norm(left, axis=1).mean() < 0.4 * np.linalg.norm(moves, axis=1).mean()


def test_an_atom_far_from_all_others_stays():
    lone = Structure(np.eye(3) * 12, ["He", "Ne"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    (found,) = BondBalance().relax([lone])
    assert np.array_equal(found.structure.frac_coords, lone.frac_coords)


def test_idealise_leaves_what_has_no_symmetry():
    rng = np.random.default_rng(1)
    start = Structure(
        np.eye(3) * 6 + rng.normal(0, 1, (3, 3)), ["H", "Li", "B", "N"], rng.random((4, 3))
    )
    (found,) = Idealise(0.01).relax([start])
    assert np.allclose(found.structure.frac_coords, start.frac_coords)
    assert np.allclose(found.structure.lattice.matrix, start.lattice.matrix)
