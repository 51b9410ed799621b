from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.core import Geometry, Status
from benchmarks.core.geometry import (
    MinimumImage,
    assigned_rmse,
    cell_parameters,
    displacements,
    free_angles,
    shortest_distance,
    strain,
    symmetry,
)
from benchmarks.metrics import COLUMNS, METRICS, SLOW_COLUMNS, Reduce, score, score_slow
from benchmarks.metrics.validity import LADDER, validity


def crystal(lattice, frac_coords, numbers):
    return Geometry(
        np.array(lattice, dtype=float),
        np.array(frac_coords, dtype=float),
        np.array(numbers, dtype=np.int16),
    )


def perovskite(a=4.0):
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return crystal(np.eye(3) * a, sites, [38, 22, 8, 8, 8])


def rotation(axis=(1.0, 2.0, 3.0), angle=0.7):
    from scipy.spatial.transform import Rotation

    axis = np.array(axis)
    return Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()


def noisy(geometry, sigma, rng, strain_sigma=0.0):
    moved = rng.normal(size=geometry.frac_coords.shape) * sigma
    cell = geometry.lattice @ (np.eye(3) + rng.normal(size=(3, 3)) * strain_sigma)
    return Geometry(
        cell, geometry.frac_coords + moved @ np.linalg.inv(geometry.lattice), geometry.numbers
    )


def scored(reference, prediction, initial=None, status=Status.OK):
    return score(reference if initial is None else initial, reference, prediction, status)


# cells without sense


def skewed(n):
    """The perovskite with a + n b in place of a."""
    change = np.array([[1.0, n, 0], [0, 1, 0], [0, 0, 1]])
    return crystal(
        change @ perovskite().lattice,
        perovskite().frac_coords @ np.linalg.inv(change),
        perovskite().numbers,
    )


@pytest.mark.parametrize("n", [2e3, 1e8, 1e12, 1e200])
def test_an_answer_skewed_beyond_sense_is_no_valid_cell(n):
    """At 1e8 structure matching did not end, and at 1e12 the cell cannot be reduced."""
    row = scored(perovskite(), skewed(n))
    assert (row["valid_species_order"], row["valid_cell"], row["scored"]) == (1, 0, 0)


def test_an_answer_in_a_skewed_setting_is_scored():
    assert scored(perovskite(), skewed(200))["scored"] == 1
    assert score_slow(perovskite(), perovskite(), skewed(200))["rmsd"] == pytest.approx(0, abs=1e-6)


def test_a_panic_of_the_symmetry_search_is_no_group(monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(*_, **__):
        raise PanicException

    monkeypatch.setattr("moyopy.MoyoDataset", panic)
    assert symmetry(perovskite(), 0.01)[0] == 0


# minimum image


@settings(max_examples=60, deadline=None)
@given(
    lengths=hnp.arrays(float, 3, elements=st.floats(2, 9)),
    angles=hnp.arrays(float, 3, elements=st.floats(60, 120)),
    skew=hnp.arrays(int, 6, elements=st.integers(-6, 6)),
    point=hnp.arrays(float, 3, elements=st.floats(-2, 2)),
)
def test_skewed_cells_have_exact_minimum_images(lengths, angles, skew, point):
    from pymatgen.core import Lattice

    radians = np.cos(np.radians(angles))
    if 1 + 2 * radians.prod() - (radians**2).sum() < 0.1:
        return  # nearly flat: the brute force below would need more images
    plain = Lattice.from_parameters(*lengths, *angles).matrix
    lower, upper = np.eye(3), np.eye(3)
    lower[[1, 2, 2], [0, 0, 1]], upper[[0, 0, 1], [1, 2, 2]] = skew[:3], skew[3:]
    skewed = lower @ upper @ plain  # the same lattice in an extreme setting
    vector = point @ plain
    shifts = np.array(list(product(range(-7, 8), repeat=3))) @ plain
    brute = np.linalg.norm(vector - np.rint(point) @ plain + shifts, axis=1).min()
    found = MinimumImage.of(skewed).shortest(vector[None])[0]
    assert np.linalg.norm(found) == pytest.approx(brute, abs=1e-8)
    steps = (found - vector) @ np.linalg.inv(plain)
    assert np.allclose(steps, np.rint(steps), atol=1e-6)


def test_plain_rounding_would_be_wrong_in_a_skewed_cell():
    lattice = np.array([[3.0, 0, 0], [2.9, 1.0, 0], [0, 0, 3.0]])
    vector = np.array([[0.45, 0.45, 0.0]]) @ lattice
    assert np.linalg.norm(vector) == pytest.approx(2.69, abs=0.01)
    shortest = MinimumImage.of(lattice).shortest(vector)
    assert np.linalg.norm(shortest) == pytest.approx(0.567032, abs=1e-6)  # one step back along a


# cell


def test_cell_parameters_of_a_monoclinic_cell():
    lattice = np.array([[3.0, 0, 0], [0, 4.0, 0], [5 * np.cos(np.radians(110)), 0, 4.698463]])
    assert cell_parameters(lattice) == pytest.approx([3, 4, 5, 90, 110, 90], abs=1e-5)


def test_strain_of_one_stretched_axis_is_its_logarithm():
    assert strain(np.eye(3) * 4, np.diag([4.4, 4, 4])) == pytest.approx(0.0953102, abs=1e-7)
    assert strain(np.eye(3) * 4, np.eye(3) * 4.76) == pytest.approx(0.3012960, abs=1e-7)
    assert strain(np.eye(3) * 4.76, np.eye(3) * 4) == pytest.approx(0.3012960, abs=1e-7)


def test_rotating_the_prediction_changes_nothing():
    rng = np.random.default_rng(0)
    reference = noisy(perovskite(), 0.1, rng, 0.1)
    prediction = noisy(reference, 0.1, rng, 0.05)
    turned = Geometry(prediction.lattice @ rotation(), prediction.frac_coords, prediction.numbers)
    plain, rotated = scored(reference, prediction), scored(reference, turned)
    assert plain["strain"] > 0.05
    assert rotated == pytest.approx(plain, abs=1e-9)


def test_a_rotated_reference_scores_like_the_plain_one():
    rng = np.random.default_rng(1)
    reference, turn = noisy(perovskite(), 0.1, rng, 0.1), rotation((3, 1, 1), 2.0)
    prediction = noisy(reference, 0.1, rng, 0.05)
    turned = Geometry(reference.lattice @ turn, reference.frac_coords, reference.numbers)
    plain, rotated = scored(reference, prediction), scored(turned, prediction, initial=reference)
    for name in ("strain", "position_error", "position_max", "assigned_square", "bond_error"):
        assert rotated[name] == pytest.approx(plain[name], abs=1e-9)


def test_errors_of_a_cell_are_in_the_setting_of_the_input():
    reference = crystal([[3, 0, 0], [0, 4, 0], [0, 0, 5]], [[0, 0, 0]], [29])
    prediction = crystal([[3.3, 0, 0], [0, 4, 0], [0, 0, 4.4]], [[0, 0, 0]], [29])
    row = scored(reference, prediction)
    assert [row[f"{name}_error"] for name in "abc"] == pytest.approx([0.3, 0, 0.6])
    assert [row[f"{name}_square"] for name in "abc"] == pytest.approx([0.09, 0, 0.36])
    assert row["lattice_error"] == pytest.approx(0.3)
    assert row["volume_error"] == pytest.approx(3.2)


FCC = np.array([[0, 2, 2], [2, 0, 2], [2, 2, 0.0]])
RHOMBOHEDRAL = np.array([[1, 1, 3], [1, 3, 1], [3, 1, 1.0]])
HEXAGONAL = np.array([[3, 0, 0], [-1.5, 1.5 * 3**0.5, 0], [0, 0, 5]])
MONOCLINIC = np.array([[3, 0, 0], [0, 4, 0], [-1, 0, 5.0]])
BCT = np.array([[-2, 2, 3], [2, -2, 3], [2, 2, -3.0]])


@pytest.mark.parametrize(
    ("lattice", "free"),
    [
        (np.eye(3) * 4, [False, False, False]),
        (np.diag([4.0, 4, 5]), [False, False, False]),
        (np.diag([3.0, 4, 5]), [False, False, False]),
        (HEXAGONAL, [False, False, False]),
        (MONOCLINIC, [False, True, False]),
        (np.array([[3, 0, 0], [-0.7, 4, 0], [-1, 0.4, 5.0]]), [True, True, True]),
        (FCC, [False, False, False]),
        (RHOMBOHEDRAL, [True, True, True]),
        (BCT, [True, True, True]),
    ],
    ids=["cubic", "tetragonal", "orthorhombic", "hexagonal", "monoclinic", "triclinic",
         "fcc-primitive", "rhombohedral", "bct-primitive"],
)  # fmt: skip
def test_free_angles_are_those_that_symmetry_allows_in_any_setting(lattice, free):
    geometry = crystal(lattice, [[0, 0, 0]], [29])
    assert free_angles(lattice, symmetry(geometry, 1e-2)[1]).tolist() == free
    strained = lattice @ (np.eye(3) + 1e-5 * np.arange(9).reshape(3, 3))
    wobbly = crystal(strained, [[0, 0, 0]], [29])  # within the tolerance: the group is the same
    assert free_angles(strained, symmetry(wobbly, 1e-2)[1]).tolist() == free


def test_a_cubic_lattice_with_less_symmetric_atoms_still_has_fixed_angles():
    dimer = crystal(np.eye(3) * 4, [[0, 0, 0], [0, 0, 0.4]], [29, 8])  # P4mm
    assert free_angles(dimer.lattice, symmetry(dimer, 1e-2)[1]).tolist() == [False] * 3
    tilted = crystal(np.eye(3) * 4, [[0, 0, 0], [0.2, 0, 0.4]], [29, 8])  # Pm: beta is free
    row = score_slow(tilted, tilted, tilted)
    assert [row[f"{name}_free"] for name in ("alpha", "beta", "gamma")] == [0, 1, 0]


# positions


def test_moving_the_whole_crystal_is_no_error():
    reference = perovskite()
    for shift in ([0.013, 0.02, 0.4], [0.5, 0.5, 0.5], [7.25, -3.5, 0.99]):
        moved = Geometry(reference.lattice, reference.frac_coords + shift, reference.numbers)
        row = scored(reference, moved)
        assert row["position_max"] == pytest.approx(0, abs=1e-9)
        assert row["assigned_square"] == pytest.approx(0, abs=1e-9)
        assert row["bond_error"] == pytest.approx(0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(shift=hnp.arrays(float, 3, elements=st.floats(-1, 1)), seed=st.integers(0, 99))
def test_errors_do_not_depend_on_the_origin_or_on_wrapping(shift, seed):
    rng = np.random.default_rng(seed)
    reference = noisy(perovskite(), 0.05, rng, 0.1)
    prediction = noisy(reference, 0.1, rng)
    moved = prediction.frac_coords + shift
    other = Geometry(
        prediction.lattice, moved - rng.integers(-2, 3, moved.shape), reference.numbers
    )
    assert scored(reference, other) == pytest.approx(scored(reference, prediction), abs=1e-7)


def test_literal_displacements_of_two_atoms():
    reference = crystal(np.eye(3) * 10, [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
    prediction = crystal(np.eye(3) * 10, [[0, 0, 0.98995], [0.5, 0.5, 0.51005]], [11, 17])
    row = scored(reference, prediction)
    assert displacements(reference, prediction) == pytest.approx(
        np.array([[0, 0, -0.1005], [0, 0, 0.1005]]), abs=1e-9
    )
    assert row["position_error"] == pytest.approx(0.1005)
    assert row["position_square"] == pytest.approx(0.01010025)
    assert row["position_max"] == pytest.approx(0.1005)
    assert row["component_error"] == pytest.approx(0.0335)
    assert row["component_square"] == pytest.approx(0.01010025 / 3)
    assert row["adwt"] == pytest.approx(400 / 491)  # t = 0.101 … 0.500 of 0.010 … 0.500


def test_gaussian_noise_has_the_ratios_of_a_gaussian():
    rng = np.random.default_rng(2)
    sites = np.array(list(product(np.arange(8) / 8, repeat=3)))
    reference = crystal(np.eye(3) * 24, sites, [6] * 512)
    row = scored(reference, noisy(reference, 0.05, rng))
    assert row["position_error"] / row["component_error"] == pytest.approx(2, rel=0.05)
    assert row["position_square"] / row["component_square"] == pytest.approx(3)
    assert row["position_square"] ** 0.5 / row["position_error"] == pytest.approx(1.085, rel=0.03)
    ratio = row["component_square"] ** 0.5 / row["component_error"]
    assert ratio == pytest.approx(1.253, rel=0.03)


def test_atoms_near_the_cell_wall_do_not_blow_up_the_rmse():
    """The published T5 table: MAE 0.066 and RMSE 0.502 Å, from 1.7 % of entries a cell away."""
    rng = np.random.default_rng(3)
    sigma, width = 0.0015, 3.9
    reference = crystal(np.eye(3) * width, rng.random((2000, 3)), [6] * 2000)
    reference.frac_coords[:34, 0] = 1e-9  # 34 of 2000 sites lie on the wall
    noise = rng.normal(size=(2000, 3)) * sigma
    noise[:34, 0] = -np.abs(noise[:34, 0]) - 1e-6  # and step over it
    wrapped = (reference.frac_coords + noise / width) % 1.0
    naive = np.abs((wrapped - reference.frac_coords) * width)[:, 0]
    assert naive.mean() == pytest.approx(0.066, abs=0.004)
    assert np.sqrt((naive**2).mean()) == pytest.approx(0.502, abs=0.02)
    assert np.sqrt((naive**2).mean()) / naive.mean() == pytest.approx(7.6, abs=0.3)
    ours = displacements(reference, Geometry(reference.lattice, wrapped, reference.numbers))[:, 0]
    assert np.abs(ours).mean() == pytest.approx(0.0012, abs=0.0001)
    assert np.sqrt((ours**2).mean()) / np.abs(ours).mean() == pytest.approx(1.253, abs=0.04)


def test_swapped_atoms_are_a_swap_and_not_a_distance():
    reference = perovskite()
    swapped = reference.frac_coords[[0, 1, 3, 2, 4]]
    row = scored(reference, Geometry(reference.lattice, swapped, reference.numbers))
    assert row["assigned_square"] == pytest.approx(0, abs=1e-12)
    assert row["position_square"] == pytest.approx(2 * 8 / 5)  # two oxygens, 2√2 Å each
    assert row["swap_gap"] == pytest.approx(np.sqrt(3.2))
    assert row["swapped"] == 1


@settings(max_examples=30, deadline=None)
@given(shift=hnp.arrays(float, 3, elements=st.floats(-1, 1)), order=st.permutations(range(4)))
def test_any_permutation_with_any_translation_is_assigned(shift, order):
    rng = np.random.default_rng(4)
    reference = crystal(np.eye(3) * 7, rng.random((7, 3)), [8, 8, 8, 8, 22, 22, 38])
    sites = np.concatenate([reference.frac_coords[:4][order], reference.frac_coords[4:]]) + shift
    prediction = Geometry(reference.lattice, sites, reference.numbers)
    moved = displacements(reference, prediction)
    assert assigned_rmse(reference, prediction, moved) == pytest.approx(0, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), sigma=st.sampled_from([0.05, 0.5, 2.0]))
def test_assignment_never_makes_the_error_larger(seed, sigma):
    rng = np.random.default_rng(seed)
    reference = noisy(perovskite(), 0.2, rng, 0.1)
    prediction = noisy(reference, sigma, rng)
    moved = displacements(reference, prediction)
    by_index = np.sqrt((moved**2).sum(axis=1).mean())
    assert assigned_rmse(reference, prediction, moved) <= by_index + 1e-12


def test_bonds_are_followed_to_the_same_image():
    reference = crystal(np.eye(3) * 5.64, [[0, 0, 0], [0.5, 0, 0]], [11, 17])
    prediction = crystal(np.eye(3) * 5.64, [[0, 0, 0], [0.55 - 1, 0, 0]], [11, 17])
    # 2.82 Å to either side becomes 3.102 and 2.538
    assert scored(reference, prediction)["bond_error"] == pytest.approx(0.282)


def test_isolated_atoms_have_no_bonds():
    lonely = crystal(np.eye(3) * 20, [[0, 0, 0]], [2])
    assert np.isnan(scored(lonely, lonely)["bond_error"])


# validity


def with_(geometry, **changes):
    return geometry._replace(**changes)


GOOD = perovskite()
NAN_CELL = np.array([[4, 0, 0], [0, np.nan, 0], [0, 0, 4.0]])
NAN_SITE = np.where(np.arange(15).reshape(5, 3) == 4, np.nan, GOOD.frac_coords)
COINCIDENT = GOOD.frac_coords[[0, 1, 2, 3, 3]]
BROKEN = {
    "unparsed": (None, 0),
    "no sites": (crystal(np.eye(3) * 4, np.empty((0, 3)), []), 1),
    "atom lost": (crystal(np.eye(3) * 4, GOOD.frac_coords[:4], [38, 22, 8, 8]), 1),
    "atom added": (crystal(np.eye(3) * 4, [*GOOD.frac_coords, [0.2] * 3], [38, 22, 8, 8, 8, 8]), 1),
    "coordinates lost": (with_(GOOD, frac_coords=GOOD.frac_coords[:4]), 1),
    "element changed": (with_(GOOD, numbers=np.array([38, 22, 8, 8, 9])), 2),
    "order changed": (with_(GOOD, numbers=GOOD.numbers[[1, 0, 2, 3, 4]]), 3),
    "NaN cell": (with_(GOOD, lattice=NAN_CELL), 4),
    "collapsed": (with_(GOOD, lattice=GOOD.lattice * 0.6), 4),
    "flat": (with_(GOOD, lattice=np.diag([4.0, 4, 0])), 4),
    "exploded": (with_(GOOD, lattice=GOOD.lattice * 1.6), 4),
    "left-handed": (with_(GOOD, lattice=np.diag([4.0, 4, -4])), 4),
    "NaN site": (with_(GOOD, frac_coords=NAN_SITE), 5),
    "infinite site": (with_(GOOD, frac_coords=GOOD.frac_coords + np.inf), 5),
    "coincident": (with_(GOOD, frac_coords=COINCIDENT), 5),
    "needle": (with_(GOOD, lattice=np.diag([0.4, 20.0, 8.0])), 5),
}


@pytest.mark.parametrize("status", [Status.OK, Status.UNCONVERGED])
@pytest.mark.parametrize(("prediction", "rungs"), BROKEN.values(), ids=BROKEN)
def test_a_broken_structure_is_never_scored_as_if_fine(prediction, rungs, status):
    row = scored(GOOD, prediction, status=status)
    assert [row[name] for name in LADDER] == [1.0] * rungs + [0.0] * (6 - rungs)
    assert row["scored"] == 0
    assert np.isnan(row["score"])
    assert np.isnan(row["lattice_error"])
    assert row["identity_lattice_error"] == 0


@pytest.mark.parametrize("status", Status)
def test_a_good_structure_is_scored_only_if_the_status_says_so(status):
    row = scored(GOOD, GOOD, status=status)
    assert row["scored"] == (status in {"ok", "unconverged"})
    answered = status in {"ok", "unconverged", "invalid"}
    assert np.isnan(row["valid_distance"]) != answered
    assert np.isnan(row["score"]) == (row["scored"] == 0)
    assert tuple(row) == COLUMNS


def test_left_handed_inputs_expect_left_handed_answers():
    left = with_(GOOD, lattice=np.diag([4.0, 4, -4]))
    assert validity(left, left)["valid_distance"] == 1
    assert validity(left, GOOD)["valid_cell"] == 0
    assert scored(left, left)["position_error"] == pytest.approx(0, abs=1e-12)


def test_shortest_distance_counts_own_images():
    assert shortest_distance(crystal(np.diag([3.0, 4, 5]), [[0, 0, 0]], [29])) == pytest.approx(3)
    assert shortest_distance(perovskite()) == pytest.approx(2)
    skewed = crystal([[3, 0, 0], [2.9, 1.0, 0], [0, 0, 3]], [[0, 0, 0]], [29])
    assert shortest_distance(skewed) == pytest.approx(np.hypot(0.1, 1.0))


# against identity, matching, symmetry


def test_doing_nothing_scores_the_floor_and_changes_nothing():
    rng = np.random.default_rng(5)
    initial = noisy(perovskite(), 0.1, rng, 0.05)
    row = score(initial, perovskite(), initial, Status.OK)
    for part in ("lattice", "position", "volume"):
        assert row[f"{part}_error"] == row[f"identity_{part}_error"] > 0
    for part in ("lattice", "position"):
        assert row[f"{part}_improvable"] == 1
        assert row[f"{part}_improved"] == row[f"{part}_harmed"] == 0


def test_the_oracle_is_perfect():
    rng = np.random.default_rng(6)
    initial = noisy(perovskite(), 0.1, rng, 0.05)
    row = score(initial, GOOD, GOOD, Status.OK) | score_slow(initial, GOOD, GOOD)
    perfect = {"score", "adwt", "strain_awt", "scored", *LADDER, "matched", "lattice_improved"}
    perfect |= {"position_improved", "symmetry_match", "symmetry_match_tight"}
    given = {name for name in row if name.startswith("identity") or name.endswith("improvable")}
    given |= {"n_sites", "alpha_free", "beta_free", "gamma_free"}
    for name in row.keys() - given:
        assert row[name] == pytest.approx(float(name in perfect), abs=1e-7), name


def test_structure_matching_does_not_see_the_cell_but_strain_does():
    stretched = perovskite(4 * 1.19)
    assert score_slow(GOOD, GOOD, stretched)["rmsd"] == pytest.approx(0, abs=1e-9)
    row = scored(GOOD, stretched)
    assert row["strain"] == pytest.approx(0.3013, abs=1e-4)
    assert row["strain_awt"] == 0
    assert row["lattice_error"] == pytest.approx(0.76)


def test_structures_without_a_match_count_one():
    rocksalt = crystal(FCC, [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
    zincblende = with_(rocksalt, frac_coords=np.array([[0, 0, 0], [0.25, 0.25, 0.25]]))
    cscl = crystal(np.eye(3) * 2.5, [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
    assert score_slow(rocksalt, rocksalt, zincblende)["rmsd"] <= 1
    row = score_slow(rocksalt, rocksalt, cscl)
    assert (row["rmsd"], row["matched"]) == (1.0, 0.0)


def test_symmetry_lost_and_gained():
    polar, barely = perovskite(), perovskite()
    polar.frac_coords[0, 2] = 0.02
    barely.frac_coords[0, 2] = 0.0005
    lost, gained = score_slow(GOOD, GOOD, polar), score_slow(polar, polar, GOOD)
    assert [lost[f"symmetry_{x}"] for x in ("match", "lost", "gained")] == [0, 1, 0]
    assert [gained[f"symmetry_{x}"] for x in ("match", "lost", "gained")] == [0, 0, 1]
    tolerant = score_slow(GOOD, GOOD, barely)
    assert tolerant["symmetry_match"] == 1
    assert tolerant["symmetry_lost_tight"] == 1
    assert tuple(lost) == SLOW_COLUMNS


# the table


def test_every_metric_reads_a_column_that_exists():
    costs = {"latency", "seconds_per_structure", "n_force_evals", "n_tokens"}
    known = {*COLUMNS, *SLOW_COLUMNS, *costs, "clean"}
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.column in known or metric.reduce is Reduce.PER_RUN, name
        assert metric.weight is None or metric.weight in known
        assert metric.description


def test_the_names_of_the_definitions_are_all_there():
    lattice = [f"{x}_{y}" for x in ("a", "b", "c", "alpha", "beta", "gamma")
               for y in ("mae", "mse", "rmse")]  # fmt: skip
    named = """score score_clean adwt strain_awt element_preservation_rate validity_rate
        validity_rate_strict
        alpha_mae_free gamma_rmse_free lattice_mae volume_mape strain position_mae position_mse
        position_rmse position_max position_mae_pooled position_rmse_pooled position_component_mae
        position_component_rmse position_assigned_rmse swap_gap swap_rate rmsd_normalized match_rate
        symmetry_match_rate symmetry_lost_rate_tight bond_length_mae skill_lattice skill_position
        skill_volume lattice_improved_rate lattice_harmed_rate position_improved_rate
        position_harmed_rate latency_median latency_p95 throughput wall_time_mean wall_time_median
        peak_memory load_time n_force_evals n_tokens"""
    assert {*lattice, *named.split()} <= METRICS.keys()


def test_what_ranks_is_worth_nothing_when_it_fails():
    for name in ("score", "adwt", "strain_awt"):
        assert METRICS[name].failure == 0
        assert METRICS[name].higher_is_better
