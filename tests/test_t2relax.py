"""Codec, tokenizer, grammar, decoding, checkpoints and the T5 relaxer."""

import json
import shutil
from copy import deepcopy
from dataclasses import fields, replace
from itertools import accumulate
from pathlib import Path
from typing import get_args

import gemmi
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.cell import Cell
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from transformers import T5ForConditionalGeneration

from benchmarks import run
from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status, UserError
from benchmarks.core.bonds import balancing_shifts, neighbours
from benchmarks.core.geometry import displacements, strain, symmetry
from benchmarks.core.symmetry import space_group
from benchmarks.core.writings import Convention, Writing
from benchmarks.models.registry import MODELS, decoding_identity, resolve
from benchmarks.testing import check_relaxer, sample_structures
from t2relax import train
from t2relax.data.token_dataset import PairDataset, PairEncoding, collate
from t2relax.data.training_pairs import (
    NO_AUGMENTATION,
    Augmentation,
    Pair,
    encode_pair,
    load_pairs,
    pairs_of,
    read_pairs,
    save_pairs,
    supercells,
)
from t2relax.lm import checkpoint, t5
from t2relax.lm import decoding as generate
from t2relax.lm.base import Mode, Written, sample_levels
from t2relax.lm.decoding import decode_constrained
from t2relax.lm.pretrained import average, from_pretrained, load
from t2relax.loss import LossSettings
from t2relax.relaxer import TextRelaxer, project
from t2relax.several_writings import relax_in_writings
from t2relax.text.codec import (
    CELL_TAGS,
    CONTACT_CUTOFF,
    CodecError,
    Crystal,
    Delta,
    _contacts,
    apply_delta,
    delta_between,
    geometry_of,
    read_delta,
    standard_lattice,
    write_cif,
    write_delta,
)
from t2relax.text.grammar import ORDINAL, REST, ordinal_values, template
from t2relax.text.tokens import (
    COARSE,
    COARSE_TOKENS,
    EOS_ID,
    FINE,
    FINE_TOKENS,
    FORCED,
    PAD_ID,
    PLAIN_VOCABULARY,
    TARGET_SIZE,
    VOCABULARY,
    Tokenizer,
)

TOKENIZER = Tokenizer()


def allowed(size):
    """(3, size) which of `size` tokens may stand at a position of each kind; FORCED has none."""
    mask = np.zeros((3, size), dtype=bool)
    mask[COARSE, TOKENIZER.ids(*COARSE_TOKENS)] = True
    mask[FINE, TOKENIZER.ids(*FINE_TOKENS)] = True
    return mask


ROCKSALT = Geometry(
    np.array([[0.0, 2.8, 2.8], [2.8, 0.0, 2.8], [2.8, 2.8, 0.0]]),
    np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]),
    np.array([11, 17], dtype=np.int16),
)
SALT = Crystal.of(ROCKSALT)
TINY = {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 64, "num_layers": 2}


@pytest.fixture(scope="module")
def tiny():
    """An untrained two-layer T5: whatever comes out right is owed to the grammar alone."""
    torch.manual_seed(0)
    return t5.new_model(TOKENIZER, num_decoder_layers=2, **TINY).eval()


@pytest.fixture(scope="module")
def tiny_folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    t5.save(tiny, TOKENIZER, folder, {"from": "scratch", "max_sites": 8})
    tiny.float()
    return folder


lengths = st.floats(2.0, 30.0)
angles = st.floats(60.0, 110.0)
numbers = st.lists(st.integers(1, 118), min_size=1, max_size=14)
seeds = st.integers(0, 2**32 - 1)


def random_geometry(cellpar, species, seed):
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))  # either handedness
    lattice = Cell.fromcellpar(cellpar).array @ rotation
    fracs = rng.uniform(-2, 2, (len(species), 3))
    return Geometry(lattice, fracs, np.array(species, dtype=np.int16))


# --- codec ---------------------------------------------------------------------------------------


def test_the_text_is_the_cif_that_ase_writes_in_single_spaces_and_fixed_decimals():
    assert write_cif(Crystal.of(ROCKSALT), balance=False) == (
        "data_image0\n"
        '_chemical_formula_sum "Na1 Cl1"\n'
        "_t2_volume_per_site 21.952\n"
        "_cell_length_a 3.9598\n"
        "_cell_length_b 3.9598\n"
        "_cell_length_c 3.9598\n"
        "_cell_angle_alpha 60.000\n"
        "_cell_angle_beta 60.000\n"
        "_cell_angle_gamma 60.000\n"
        '_space_group_name_H-M_alt "P 1"\n'
        "_space_group_IT_number 1\n"
        "loop_\n"
        "_space_group_symop_operation_xyz\n"
        "'x, y, z'\n"
        "loop_\n"
        "_t2_contact_type_symbol_1\n"
        "_t2_contact_type_symbol_2\n"
        "_t2_contact_distance\n"
        "_t2_contact_multiplicity\n"
        "Na Na 3.960 12\n"
        "Na Cl 2.800 6\n"
        "Cl Cl 3.960 12\n"
        "loop_\n"
        "_atom_site_type_symbol\n"
        "_atom_site_label\n"
        "_atom_site_fract_x\n"
        "_atom_site_fract_y\n"
        "_atom_site_fract_z\n"
        "Na Na1 0.00000 0.00000 0.00000\n"
        "Cl Cl2 0.50000 0.50000 0.50000"
    )


def test_the_target_lists_changes_and_zero_has_a_plus():
    crystal = Crystal(np.array([5.0, 4, 4, 90, 90, 90]), np.zeros((2, 3)), ROCKSALT.numbers)
    delta = Delta(np.array([0.1, 0, -0.1, 0, 0, -1e-9]), np.array([[0, 0, 1e-7], [-0.25, 0, 0]]))
    assert write_delta(delta, crystal) == (
        "data_delta\n"
        "_t2_mean_length -00.184\n"  # (1.02 * 0.975)^(1/3) = 0.99816
        "_cell_length_a +02.000\n"
        "_cell_length_b +00.000\n"
        "_cell_length_c -02.500\n"
        "_cell_angle_alpha +00.000\n"
        "_cell_angle_beta +00.000\n"
        "_cell_angle_gamma +00.000\n"
        "loop_\n"
        "_atom_site_type_symbol\n"
        "_atom_site_label\n"
        "_atom_site_fract_x\n"
        "_atom_site_fract_y\n"
        "_atom_site_fract_z\n"
        "Na Na1 +00.000 +00.000 +00.000\n"
        "Cl Cl2 -25.000 +00.000 +00.000"
    )


def test_the_text_says_where_each_site_would_balance_its_bonds():
    """Along a the two species of a chain have bonds of 1.88 and 2.12 Å; b and c are long."""
    chain = Geometry(
        np.diag([4.0, 8.0, 8.0]), np.array([[0, 0, 0], [0.47, 0, 0]]), np.array([11, 17], np.int16)
    )
    crystal = Crystal.of(chain)
    plain, told = write_cif(crystal, balance=False), write_cif(crystal)
    shifts = balancing_shifts(neighbours(chain.lattice, chain.frac_coords, 5.5), chain.numbers)
    assert shifts[0, 0] < 0 < shifts[1, 0]
    assert np.abs(shifts[:, 1:]).max() < 1e-9
    step = f"{100 * shifts[1, 0] / 4:04.1f}"
    head = "_atom_site_fract_z\n"
    columns = "_t2_balance_fract_x\n_t2_balance_fract_y\n_t2_balance_fract_z\n"
    assert told == plain.replace(head, head + columns).replace(
        "Na Na1 0.00000 0.00000 0.00000", f"Na Na1 0.00000 0.00000 0.00000 -{step} +00.0 +00.0"
    ).replace(
        "Cl Cl2 0.47000 0.00000 0.00000", f"Cl Cl2 0.47000 0.00000 0.00000 +{step} +00.0 +00.0"
    )
    assert TOKENIZER.decode(TOKENIZER.encode(told)) == told
    assert TOKENIZER.source(crystal) == [*TOKENIZER.encode(told), EOS_ID]
    older = Tokenizer(PLAIN_VOCABULARY)
    assert older.source(crystal) == [*older.encode(plain), EOS_ID]


@settings(max_examples=40, deadline=None)
@given(st.tuples(lengths, lengths, lengths, angles, angles, angles), numbers, seeds)
def test_contacts_are_the_shortest_distances_that_ase_finds(cellpar, species, seed):
    try:
        lattice = standard_lattice(np.array(cellpar))
    except CodecError:
        return  # three angles that span no cell
    zs = np.array(species[:5], dtype=np.int16)
    fracs = np.random.default_rng(seed).random((len(zs), 3))
    distances = np.linalg.norm(neighbours(lattice, fracs, 5.5), axis=-1)
    listed = [line.split(" ") for line in _contacts(distances, zs).splitlines()[1:]]
    atoms = Atoms(numbers=zs, scaled_positions=fracs, cell=lattice, pbc=True)
    first, second, distances = neighbor_list("ijd", atoms, CONTACT_CUTOFF + 1e-9)
    found = {}
    for i, j, d in zip(first, second, distances, strict=True):
        pair = tuple(sorted((atoms[i].symbol, atoms[j].symbol)))
        found[pair] = min(d, found.get(pair, np.inf))
    assert {tuple(sorted(row[:2])): row[2] for row in listed} == {
        pair: f"{distance:.3f}" for pair, distance in found.items()
    }


@settings(max_examples=60, deadline=None)
@given(st.tuples(lengths, lengths, lengths, angles, angles, angles), numbers, seeds)
def test_a_cif_read_and_written_again_does_not_change(cellpar, species, seed):
    try:
        text = write_cif(Crystal.of(random_geometry(cellpar, species, seed)))
    except CodecError:
        return  # three angles that span no cell
    again = read_cif(text)
    assert write_cif(again) == text
    assert again.numbers.tolist() == species
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@settings(max_examples=60, deadline=None)
@given(st.tuples(lengths, lengths, lengths), numbers, seeds)
def test_decoding_gives_the_relaxed_structure_back_to_the_stated_decimals(abc, species, seed):
    rng = np.random.default_rng(seed)
    initial = random_geometry((*abc, 90, 95, 110), species, seed)
    moved = initial.frac_coords + rng.normal(0, 0.01, initial.frac_coords.shape)
    moved += rng.integers(-1, 2, moved.shape)  # an image further on is the same place
    final = Geometry(initial.lattice @ (np.eye(3) + rng.normal(0, 0.03, (3, 3))), moved, initial[2])
    crystal = Crystal.of(initial)
    text = write_delta(delta_between(initial, final), crystal)
    decoded = apply_delta(initial, *read_delta(text, crystal))
    longest = np.linalg.norm(final.lattice, axis=1).max()
    assert strain(final.lattice, decoded.lattice) < 2e-3 / min(abc)
    assert np.abs(displacements(final, decoded)).max() < 3 * 0.5e-5 * longest
    assert write_delta(delta_between(initial, decoded), crystal) == text


def test_decoding_restores_the_orientation_that_a_cif_forgets():
    rotation = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    lattice = np.diag([3.0, 4.0, 5.0]) @ rotation
    initial = Geometry(lattice, np.zeros((1, 3)), np.array([14], dtype=np.int16))
    change = Delta(np.array([0.3, 0, 0, 0, 0, 0]), np.zeros((1, 3)))
    expected = np.diag([3.3, 4.0, 5.0]) @ rotation
    assert np.allclose(apply_delta(initial, change, initial.numbers).lattice, expected, atol=1e-12)
    mirrored = initial._replace(lattice=-lattice)
    assert np.allclose(apply_delta(mirrored, change, initial[2]).lattice, -expected, atol=1e-12)


def test_no_change_leaves_every_bit_of_the_input():
    nothing = Delta(np.zeros(6), np.zeros((2, 3)))
    same = apply_delta(ROCKSALT, nothing, ROCKSALT.numbers)
    assert (same.lattice == ROCKSALT.lattice).all()
    assert (same.frac_coords == ROCKSALT.frac_coords).all()


@pytest.mark.parametrize(
    "cellpar",
    [(5, 5, 5, 170, 170, 170), (0, 5, 5, 90, 90, 90), (5, 5, np.nan, 90, 90, 90)],
    ids=["impossible angles", "no length", "nan"],
)
def test_a_cell_that_is_none_has_no_text(cellpar):
    crystal = Crystal(np.array(cellpar, dtype=float), np.zeros((1, 3)), ROCKSALT.numbers[:1])
    with pytest.raises(CodecError):
        write_cif(crystal)


@pytest.mark.parametrize(
    "delta",
    [
        Delta(np.array([4.0, 0, 0, 0, 0, 0]), np.zeros((2, 3))),
        Delta(np.array([np.nan, 0, 0, 0, 0, 0]), np.zeros((2, 3))),
        Delta(np.zeros(6), np.ones((2, 3))),
    ],
    ids=["too wide", "nan", "a whole cell"],
)
def test_a_change_that_does_not_fit_raises_instead_of_being_cut(delta):
    with pytest.raises(CodecError):
        write_delta(delta, SALT)


GOOD = write_delta(Delta(np.zeros(6), np.zeros((2, 3))), SALT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD.replace("data_delta\n", ""),
        GOOD.replace("_cell_length_b +00.000\n", ""),
        GOOD.replace("+00.000", "+0.0000", 1),
        GOOD.replace("Na1", "Cl1"),
        GOOD.replace("Na Na1", "Qq Qq1"),
        GOOD.replace("Na Na1 +00.000 ", "Na Na1 "),
        GOOD.split("Na Na1")[0],
    ],
)
def test_text_that_is_no_structure_does_not_parse(text):
    with pytest.raises(CodecError):
        read_delta(text, SALT)


# --- tokens --------------------------------------------------------------------------------------


def test_elements_keywords_and_the_two_parts_of_a_number_are_single_tokens():
    for text in (
        "He",
        "\nOg Og",
        "7",
        "\n_cell_length_b",
        " +01.9",
        "24",
        " 5.4",
        "310",
        " 0.50000",
    ):
        assert len(TOKENIZER.encode(text)) == 1
    # cobalt is not carbon and oxygen, and neon not nitrogen
    assert [VOCABULARY[i] for i in TOKENIZER.encode("CoCO")] == ["Co", "C", "O"]
    assert [VOCABULARY[i] for i in TOKENIZER.encode("\nN Ne")] == ["\nN", " Ne"]


def test_the_vocabulary_of_the_committed_checkpoint_is_pinned():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 5615
    assert Tokenizer(PLAIN_VOCABULARY).sha256[:16] == "1238ec933a71febc"
    assert VOCABULARY[:-1] == PLAIN_VOCABULARY
    assert load(checkpoint.CHECKPOINT).tokenizer.vocabulary in (PLAIN_VOCABULARY, VOCABULARY)


@pytest.mark.parametrize("text", ["Na Na1 1,0", "\n_cell_volume 3", "Xx", "\t", "data_image", "é"])
def test_what_the_vocabulary_cannot_spell_raises_and_is_never_unk(text):
    with pytest.raises(CodecError, match="not in the vocabulary"):
        TOKENIZER.encode(text)


@given(st.integers(-99999, 99999))
def test_a_change_is_spelt_by_its_ordinal_token_and_the_rest(thousandths):
    text = f" {thousandths / 1000:+07.3f}"
    leading, rest = TOKENIZER.encode(text)
    assert ORDINAL.start <= leading < ORDINAL.stop
    middle = ordinal_values()[leading - ORDINAL.start]
    assert abs(middle - thousandths / 1000) <= 0.05 + 1e-9
    assert VOCABULARY[rest] in FINE_TOKENS


@settings(max_examples=40, deadline=None)
@given(numbers, seeds)
def test_the_grammar_gives_everything_but_numbers(species, seed):
    rng = np.random.default_rng(seed)
    zs = np.array(species, dtype=np.int16)
    delta = Delta(rng.normal(0, 1, 6), rng.uniform(-0.5, 0.5, (len(species), 3)))
    crystal = Crystal(np.array([9.0, 8, 7, 80, 90, 100]), np.zeros((len(species), 3)), zs)
    ids = np.array([*TOKENIZER.encode(write_delta(delta, crystal), TARGET_SIZE), EOS_ID])
    grammar = template(zs, TOKENIZER)
    assert len(ids) == len(grammar.ids)
    given_ids = grammar.kinds == FORCED
    assert (ids[given_ids] == grammar.ids[given_ids]).all()
    mask = allowed(len(TOKENIZER))
    assert mask[grammar.kinds[~given_ids], ids[~given_ids]].all()
    assert (~given_ids).sum() == 2 * 7 + 6 * len(species)
    assert ids.max() < TARGET_SIZE


def test_a_target_of_any_size_is_spelt_by_the_tokens_of_targets():
    numbers = np.full(1200, 11, dtype=np.int16)
    crystal = Crystal(np.array([90.0, 80, 70, 80, 90, 100]), np.zeros((1200, 3)), numbers)
    pair = Pair(crystal, Delta(np.zeros(6), np.zeros((1200, 3))))
    _, ids = encode_pair(pair, TOKENIZER)
    assert max(ids) < TARGET_SIZE
    assert TOKENIZER.decode(ids) == write_delta(pair.delta, crystal)
    grammar = template(numbers, TOKENIZER)
    assert (grammar.ids[grammar.kinds == FORCED] == np.array(ids)[grammar.kinds == FORCED]).all()


# --- data ----------------------------------------------------------------------------------------


def silver(a):
    return Structure(Lattice.cubic(a), ["Ag"], [[0, 0, 0]])


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_augmentation_keeps_the_relaxed_crystal(seed):
    """Start and conventions change, the structure at the end does not."""
    rng = np.random.default_rng(seed)
    initial = random_geometry((4, 5, 6, 80, 95, 100), [3, 8, 8, 22], seed)
    moved = initial.frac_coords + rng.normal(0, 0.02, (4, 3))
    final = Geometry(initial.lattice * 1.07, moved, initial.numbers)
    pair = Pair(Crystal.of(initial), delta_between(initial, final))
    always = {field.name: 1 for field in fields(Augmentation)} | {"supercell": 0, "relaxed": 0}
    changed = Augmentation(**always)(pair, rng)
    start = geometry_of(changed.initial)
    end = apply_delta(start, changed.delta, start.numbers)
    assert np.linalg.det(end.lattice) == pytest.approx(abs(np.linalg.det(final.lattice)), rel=1e-9)
    assert _pair_distances(end) == pytest.approx(_pair_distances(final), abs=1e-6)


def test_sublattices_are_displaced_together_and_move_back():
    """In rock salt each kind of atom moves as one; rutile may also keep its space group."""
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0] * 3, [0.5] * 3]
    )
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.6, 2.96), ["Ti", "O"], [[0] * 3, [0.305, 0.305, 0]]
    )
    groups, sizes = set(), []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        for crystal in (salt, rutile):
            pair = Pair(
                Crystal.of(Geometry.of(crystal)), Delta(np.zeros(6), np.zeros((len(crystal), 3)))
            )
            changed = replace(NO_AUGMENTATION, together=1.0)(pair, rng)
            start = geometry_of(changed.initial)
            moves = displacements(geometry_of(pair.initial), start)
            end = apply_delta(start, changed.delta, start.numbers)
            assert np.abs(displacements(geometry_of(pair.initial), end)).max() < 1e-9
            if crystal is salt:
                assert np.abs(moves[:4] - moves[0]).max() < 1e-9
                assert np.abs(moves[4:] - moves[4]).max() < 1e-9
                sizes.append(np.linalg.norm(moves, axis=1).mean())
            else:
                groups.add(space_group_number(start))
    assert max(sizes) <= 0.3 + 1e-9
    assert 0.08 < np.median(sizes) < 0.13
    assert 136 in groups
    assert len(groups) > 2


def space_group_number(geometry):
    return symmetry(geometry, 1e-3)[0]


def test_a_displaced_start_moves_back_to_where_the_relaxed_atoms_are():
    """The widths of the displacements are half-normal, so their mean square is 0.08 Å squared."""
    initial = random_geometry((4, 5, 6, 80, 95, 100), [3, 8, 8, 22, 22], 1)
    pair = Pair(Crystal.of(initial), Delta(np.zeros(6), np.zeros((5, 3))))
    displace = replace(NO_AUGMENTATION, displacement=1.0)
    rng = np.random.default_rng(0)
    squares = []
    for _ in range(2000):
        start = displace(pair, rng)
        assert np.array_equal(start.initial.cellpar, pair.initial.cellpar)
        back = start.initial.frac_coords + start.delta.frac_coords
        assert np.allclose(back, pair.initial.frac_coords, atol=1e-12)
        moves = start.delta.frac_coords @ start.start().lattice
        assert np.allclose(moves.mean(axis=0), 0, atol=1e-12)
        squares.append(np.square(moves).mean())
    # One fifth of the variance of five independent displacements is in their mean.
    assert np.mean(squares) == pytest.approx(0.8 * 0.08**2, rel=0.1)


def test_a_strained_start_has_six_new_parameters_and_the_same_end():
    initial = random_geometry((4, 5, 6, 80, 95, 100), [3, 8], 2)
    pair = Pair(Crystal.of(initial), Delta(np.arange(6.0) / 10, np.zeros((2, 3))))
    strained = replace(NO_AUGMENTATION, strain=1.0)(pair, np.random.default_rng(0))
    change = strained.initial.cellpar - pair.initial.cellpar
    assert (change != 0).all()
    assert np.abs(change[:3] / pair.initial.cellpar[:3]).max() < 0.0513
    assert np.abs(change[3:]).max() <= 3.0
    ends = [x.initial.cellpar + x.delta.cellpar for x in (pair, strained)]
    assert np.allclose(*ends, atol=1e-12)


def test_a_relaxed_start_has_nothing_left_to_change():
    final = Geometry(ROCKSALT.lattice * 1.05, ROCKSALT.frac_coords + 0.01, ROCKSALT.numbers)
    pair = Pair(Crystal.of(ROCKSALT), delta_between(ROCKSALT, final))
    relaxed = replace(NO_AUGMENTATION, relaxed=1.0)(pair, np.random.default_rng(0))
    assert not relaxed.delta.cellpar.any()
    assert not relaxed.delta.frac_coords.any()
    assert np.allclose(relaxed.initial.cellpar, Crystal.of(final).cellpar, atol=1e-9)


def test_supercells_are_larger_than_the_crystals_they_repeat():
    small = Pair(Crystal.of(ROCKSALT), Delta(np.zeros(6), np.zeros((2, 3))))
    large = supercells([small], 40, seed=0)
    sizes = {len(pair.initial.numbers) for pair in large}
    assert 30 <= len(large) <= 40  # two sites to 17: 16 is reached and is not large
    assert min(sizes) > 16
    assert max(sizes) <= 64
    assert len(sizes) > 3
    for pair in large[:3]:
        per_site = pair.start().structure().volume / len(pair.initial.numbers)
        assert per_site == pytest.approx(ROCKSALT.structure().volume / 2)
        assert len(pair.start().structure().get_primitive_structure()) == 2


def _pair_distances(geometry):
    structure = geometry.structure()
    found = [
        (*sorted((structure[i].specie.Z, structure[j].specie.Z)), structure.get_distance(i, j))
        for i in range(len(structure))
        for j in range(i)
    ]
    return [distance for *_, distance in sorted(found)]


def test_pairs_survive_the_archive(tmp_path):
    pair = Pair(Crystal.of(ROCKSALT), Delta(np.arange(6.0) / 4, np.full((2, 3), 0.25)))
    save_pairs(tmp_path / "pairs.npz", [pair, pair], {"a/b": "sha256:1"})
    (again, _), origin = load_pairs(tmp_path / "pairs.npz")
    assert origin == {"a/b": "sha256:1"}
    assert encode_pair(again, TOKENIZER) == encode_pair(pair, TOKENIZER)
    (tmp_path / "other.npz").write_text("no archive")
    with pytest.raises(UserError, match="no archive of pairs"):
        load_pairs(tmp_path / "other.npz")


def test_every_frame_of_a_trajectory_can_be_the_start(write_lemat, lemat_frame, tmp_path):
    cells = (4.0, 4.3, 4.2, 4.1)
    frames = [lemat_frame(silver(a), "mp-1", step) for step, a in enumerate(cells)]
    data = str(write_lemat(tmp_path / "train.parquet", frames))
    pairs, _ = read_pairs([data], "train", every_frame=True)
    starts = [(pair.initial.cellpar[0], pair.delta.cellpar[0]) for pair in pairs]
    assert np.allclose(starts, [(4.0, 0.1), (4.3, -0.2), (4.2, -0.1)])
    assert len(read_pairs([data], "train")[0]) == 1


def test_padding_is_masked_and_ignored():
    pair = Pair(Crystal.of(ROCKSALT), Delta(np.zeros(6), np.zeros((2, 3))))
    one = Crystal(pair.initial.cellpar, np.zeros((1, 3)), ROCKSALT.numbers[:1])
    small = Pair(one, Delta(np.zeros(6), np.zeros((1, 3))))
    encode = PairEncoding(LossSettings().weights, TOKENIZER)
    data = PairDataset([pair, small], NO_AUGMENTATION, encode)
    batch = collate([data[i] for i in (0, 1)])
    assert (batch["attention_mask"] == (batch["input_ids"] != PAD_ID)).all()
    assert (batch["labels"][1] == -100).any()
    assert not (batch["labels"] == PAD_ID).any()
    assert ((batch["loss_weights"] > 0) == (batch["labels"] != -100)).all()


SMALL = ("gpaw/train", "gpaw/val", "gpaw/test", "substitution/val", "substitution/test")
SMALL += ("vasp/trajectories", "hydrides/trajectories")
LARGE = pytest.param("substitution/train", marks=pytest.mark.full)


@pytest.mark.parametrize("name", [*SMALL, LARGE])
def test_every_real_relaxation_has_a_text_that_comes_back(shared_data, name):
    from benchmarks.data import load

    samples = load(str(shared_data / f"{name}.parquet"))
    pairs, refused = pairs_of(samples)
    assert refused == []
    for pair in pairs:
        assert_text_comes_back(pair.initial)
        target = write_delta(pair.delta, pair.initial)
        delta, species = read_delta(target, pair.initial)
        assert (species == pair.initial.numbers).all()
        assert write_delta(delta, pair.initial) == target
        assert np.abs(delta.cellpar - pair.delta.cellpar)[:3].max() < 0.001
        assert np.abs(delta.cellpar - pair.delta.cellpar)[3:].max() < 0.005
        a = pair.initial.cellpar[:3]
        assert np.linalg.norm((delta.frac_coords - pair.delta.frac_coords) * a, axis=1).max() < 1e-3


EVERY = (*SMALL, "vasp/lemat-quirks", "substitution/train")


@pytest.mark.parametrize(
    "name", ["vasp/other_frames", *(pytest.param(name, marks=pytest.mark.full) for name in EVERY)]
)
def test_every_frame_has_a_text_that_comes_back(shared_data, name):
    from benchmarks.data import frames

    for frame in frames(str(shared_data / f"{name}.parquet")):
        assert_text_comes_back(Crystal.of(frame.geometry))


def read_cif(text):
    """The crystal that a CIF in P 1 lists, with its sites in the order of the file, by gemmi."""
    block = gemmi.cif.read_string(text).sole_block()
    sites = [block.find_loop(f"_atom_site_{column}") for column in SITE_COLUMNS]
    return Crystal(
        np.array([float(block.find_value(tag)) for tag in CELL_TAGS]),
        np.array([[float(value) for value in column] for column in sites[1:]]).T,
        np.array([atomic_numbers[symbol] for symbol in sites[0]], dtype=np.int16),
    )


SITE_COLUMNS = ("type_symbol", "fract_x", "fract_y", "fract_z")


def assert_text_comes_back(crystal):
    source = write_cif(crystal)
    assert TOKENIZER.decode(TOKENIZER.encode(source)) == source
    assert write_cif(read_cif(source)) == source


def test_that_a_number_is_due_counts_beside_which_one():
    student = t5.new_model(TOKENIZER, d_model=8, d_ff=8, num_layers=1, num_heads=1, d_kv=8)
    labels = torch.tensor([ORDINAL.start + 5, REST.start + 7, EOS_ID])
    logits = torch.randn(3, TARGET_SIZE, generator=torch.Generator().manual_seed(0))
    losses = []
    for number in (0.0, 0.5):
        student.set_loss(LossSettings(number=number))
        losses.append(student._loss(logits, labels, torch.ones(3)))
    cost = 0.0
    for shares, span in zip(logits.softmax(dim=-1), (ORDINAL, REST), strict=False):
        cost += torch.log1p((1 - shares[span].sum()) / shares[span].max()).item()
    assert (losses[1] - losses[0]).item() == pytest.approx(0.5 * cost / 3, rel=1e-4)


def test_each_token_of_a_target_weighs_what_it_says():
    settings = LossSettings(cell=8, angle=7, position=6, rest=5, forced=4)
    grammar = template(ROCKSALT.numbers, TOKENIZER)
    weights = settings.weights(grammar).tolist()
    words = [TOKENIZER.vocabulary[i] for i in grammar.ids]
    header, sites = words.index("\nNa Na"), words.index("\nCl Cl")
    assert weights[:12] == [4, 8, 5] * 4
    assert weights[12:21] == [4, 7, 5] * 3
    assert weights[21:header] == [4]  # the loop's head
    assert weights[header:] == [4, 4, *[6, 5] * 3, 4, 4, *[6, 5] * 3, 4]
    assert sites == header + 8


def test_a_supercell_relaxes_as_its_cell_does():
    only = replace(NO_AUGMENTATION, supercell=1.0)
    rng = np.random.default_rng(0)
    final = Geometry(ROCKSALT.lattice * 1.05, ROCKSALT.frac_coords + 0.01, ROCKSALT.numbers)
    pair = Pair(Crystal.of(ROCKSALT), delta_between(ROCKSALT, final))
    for _ in range(20):
        large = only(pair, rng)
        times = len(large.initial.numbers) // 2
        assert 2 <= times <= 8
        starts = [geometry_of(x.initial) for x in (pair, large)]
        ends = [
            apply_delta(start, x.delta, start.numbers)
            for start, x in zip(starts, (pair, large), strict=True)
        ]
        for small, big in (starts, ends):
            assert big.structure().volume == pytest.approx(times * small.structure().volume)
            assert len(big.structure().get_primitive_structure()) == 2


# --- decoding ------------------------------------------------------------------------------------


def decode_slowly(model, structures):
    """The same constraint without cache, batch or runs of given tokens: one token at a time."""
    rows = []
    for structure in structures:
        geometry = Geometry.of(structure)
        source = torch.tensor([TOKENIZER.source(Crystal.of(geometry))])
        grammar = template(geometry.numbers, TOKENIZER)
        mask = torch.from_numpy(allowed(model.lm_head.out_features))
        ids = [PAD_ID]
        for token, kind in zip(grammar.ids.tolist(), grammar.kinds.tolist(), strict=True):
            with torch.no_grad():
                logits = model(
                    input_ids=source, decoder_input_ids=torch.tensor([ids]), use_cache=False
                ).logits[0, -1]
            free = int(logits.masked_fill(~mask[kind], -torch.inf).argmax())
            if kind == COARSE:
                shares = torch.softmax(logits[ORDINAL].float(), dim=-1).tolist()
                median = next(k for k, s in enumerate(accumulate(shares)) if s >= 0.5)
                free = ORDINAL.start + median
            ids.append(token if kind == FORCED else free)
        rows.append(ids[1:])
    return rows


@pytest.mark.parametrize("encoded_tokens", [1, 150, 10**6])
def test_cache_batch_and_skipped_tokens_change_nothing(tiny, monkeypatch, encoded_tokens):
    monkeypatch.setattr(generate, "ENCODED_TOKENS", encoded_tokens)
    tiny = deepcopy(tiny).double()  # random weights: rounding decides between two numbers
    structures = sample_structures()
    geometries = [Geometry.of(structure) for structure in structures]
    fast = decode_constrained(
        tiny,
        [TOKENIZER.source(Crystal.of(geometry)) for geometry in geometries],
        [template(geometry.numbers, TOKENIZER) for geometry in geometries],
    )
    assert [chosen.ids[0].tolist() for chosen in fast] == decode_slowly(tiny, structures)


@pytest.mark.parametrize(
    ("shares", "level", "expected"),
    [
        ({1002: 0.95, 1000: 0.05}, 0.5, 1002),
        ({1002: 0.45, 990: 0.55}, 0.5, 990),
        ({1002: 0.45, 990: 0.55}, 0.6, 1002),
        ({997: 0.4, 998: 0.45, 1000: 0.15}, 0.5, 998),
        ({997: 0.4, 998: 0.6}, 0.999, 998),
    ],
)
def test_leading_digits_are_a_quantile(shares, level, expected):
    logits = torch.full((1, len(COARSE_TOKENS)), -torch.inf)
    for place, share in shares.items():
        logits[0, place] = np.log(share)
    assert generate.quantile(logits, torch.tensor([level]))[0].item() == expected


def test_free_texts_are_those_of_generate(tiny):
    sources = [TOKENIZER.source(Crystal.of(Geometry.of(s))) for s in sample_structures()]
    texts = generate.decode_free(tiny, sources, 40)
    for source, text in zip(sources, texts, strict=True):
        (row,) = tiny.generate(
            input_ids=torch.tensor([source]), do_sample=False, max_new_tokens=40,
            suppress_tokens=list(range(TARGET_SIZE, tiny.config.vocab_size)),
        )  # fmt: skip
        assert text == row[1:].tolist()


def test_a_text_ends_with_its_end_and_samples_follow_each_other(tiny):
    sources = [TOKENIZER.source(Crystal.of(Geometry.of(s))) for s in sample_structures()[:2]]
    texts = generate.decode_free(tiny, sources, 300, 8, torch.Generator().manual_seed(0))
    assert len(texts) == 16
    assert all(text.index(EOS_ID) == len(text) - 1 for text in texts if EOS_ID in text)
    assert max(map(len, texts)) <= 300
    assert len({tuple(text) for text in texts[:8]}) > 1


def test_an_embedding_larger_than_the_vocabulary_cannot_leak_tokens():
    """T5 checkpoints have 32128 rows for 32100 tokens; the mask must cover the surplus."""
    torch.manual_seed(1)
    model = t5.new_model(TOKENIZER, num_decoder_layers=1, **TINY).eval()
    model.resize_token_embeddings(len(TOKENIZER) + 28)
    with torch.no_grad():
        model.shared.weight[len(TOKENIZER) :] *= 100.0  # where the logits would be highest
    geometry = Geometry.of(sample_structures()[5])
    (chosen,) = decode_constrained(
        model,
        [TOKENIZER.source(Crystal.of(geometry))],
        [template(geometry.numbers, TOKENIZER)],
    )
    row = chosen.ids[0]
    assert row.max() < len(TOKENIZER)
    _, species = read_delta(TOKENIZER.decode(row.tolist()), Crystal.of(geometry))
    assert species.tolist() == geometry.numbers.tolist()


def test_an_untrained_model_cannot_break_the_grammar(tiny_folder):
    """Preservation by construction: random weights keep every atom, in order."""
    outcomes = TextRelaxer(tiny_folder).relax(sample_structures())
    for structure, outcome in zip(sample_structures(), outcomes, strict=True):
        text = outcome.detail.split("\n", 1)[1] if outcome.detail else None
        crystal = Crystal.of(Geometry.of(structure))
        species = read_delta(text, crystal)[1] if text else outcome.structure.atomic_numbers
        assert list(species) == list(structure.atomic_numbers)


def test_what_an_untrained_model_writes_freely_is_invalid_and_kept(tiny_folder):
    outcomes = TextRelaxer(tiny_folder, mode="free").relax(sample_structures())
    assert {outcome.status for outcome in outcomes} == {Status.INVALID}
    assert all(outcome.detail and outcome.n_tokens for outcome in outcomes)


def test_lost_atoms_are_invalid_with_the_sites_as_generated(tiny_folder):
    written = Written(GOOD.split("\nCl Cl2")[0], 40)
    lost = TextRelaxer(tiny_folder, mode="free")._outcome(ROCKSALT, [written])
    assert lost.status is Status.INVALID
    assert lost.structure.atomic_numbers == (11,)
    assert "Na Na1" in lost.detail


def test_the_median_of_samples_is_taken_change_by_change(tiny_folder):
    relaxer = TextRelaxer(tiny_folder, mode="best8")
    texts = [GOOD.replace("_a +00.000", f"_a +0{k}.000") for k in (1, 9, 2)]
    outcome = relaxer._outcome(ROCKSALT, [Written(text, 40) for text in texts])
    a, b, _ = outcome.structure.lattice.abc
    assert a / b == pytest.approx(1.02, abs=1e-9)


def test_samples_differ_and_do_not_depend_on_the_batch(tiny_folder):
    levels = sample_levels(0, [5, 6, 7], 40)
    assert levels.shape == (8, 40)
    assert (np.sort((levels * 8).astype(int), axis=0) == np.arange(8)[:, None]).all()
    assert (sample_levels(0, [5, 6, 7], 40) == levels).all()
    assert (sample_levels(0, [5, 6, 8], 40) != levels).any()
    model = load(tiny_folder)
    prompts = [model.prompt(Crystal.of(Geometry.of(s))) for s in sample_structures()[4:6]]
    together = model.decode(prompts, seed=0)
    assert [len({written.text for written in texts}) for texts in together] == [8, 8]
    (alone,) = model.decode(prompts[1:], seed=0)
    assert [written.text for written in alone] == [written.text for written in together[1]]


# --- several writings of one crystal -------------------------------------------------------------


def test_the_median_over_writings_moves_less_when_the_crystal_is_written_otherwise():
    """With the packaged T5; a relaxation that saw crystals alone would give 0."""
    apart = {}
    for mode in ("constrained", "tta"):
        relaxer = TextRelaxer(mode=mode)
        given = [Geometry.of(structure) for structure in sample_structures()]
        draws = [np.random.default_rng(i) for i in range(len(given))]
        drawn = [Writing.drawn(set(Convention) - {Convention.SUPERCELL}, len(g.numbers), rng)
                 for g, rng in zip(given, draws, strict=True)]  # fmt: skip
        written = [w.apply(g).structure() for w, g in zip(drawn, given, strict=True)]
        answers = relaxer.relax([*sample_structures(), *written])
        assert {answer.status for answer in answers} == {Status.OK}
        ends = [Geometry.of(answer.structure) for answer in answers]
        restored = [w.restore(end, g)
                    for w, end, g in zip(drawn, ends[len(given):], given, strict=True)]  # fmt: skip
        pairs = zip(ends[: len(given)], restored, strict=True)
        apart[mode] = np.mean([strain(end.lattice, other.lattice) for end, other in pairs])
    assert apart["constrained"] > 0.01
    assert apart["tta"] < apart["constrained"] / 2


def test_answers_to_writings_come_back_and_their_median_is_taken():
    """Each answer stretches all axes, by 1 % in the first writing and by 3 % in most others; the
    last one has no structure."""
    cubic = Structure(Lattice.cubic(4.0), ["Na", "Cl", "Cl"], [[0, 0, 0], [0.5] * 3, [0.2] * 3])
    seen = []

    def relax(structures):
        seen.extend(structures)
        factors = [1.01, 1.03, 1.03, 1.03, 1.02, 1.04, 1.05, None]
        return [
            Relaxed(status=Status.INVALID, n_tokens=5, detail="no text")
            if factor is None
            else Relaxed(
                status=Status.OK,
                n_tokens=10,
                structure=Structure(factor * s.lattice.matrix, s.species, s.frac_coords),
            )
            for factor, s in zip(factors, structures, strict=True)
        ]

    (found,) = relax_in_writings(relax, [cubic], 0)
    assert seen[0] == cubic
    assert len({tuple(s.frac_coords.ravel()) for s in seen}) == 8
    assert len({tuple(s.atomic_numbers) for s in seen}) > 1
    assert found.status is Status.OK
    assert found.n_tokens == 75
    assert found.structure.lattice.abc == pytest.approx([4.12] * 3)
    assert found.structure.frac_coords == pytest.approx(cubic.frac_coords, abs=1e-9)
    assert found.structure.species == cubic.species


def test_a_structure_without_any_answer_has_that_to_the_given_writing(tiny_folder):
    relaxer = TextRelaxer(tiny_folder, mode="tta")
    large = Structure(Lattice.cubic(9.0), ["Na"] * 9, [[0.1 * i, 0, 0] for i in range(9)])
    shared = Structure(Lattice.cubic(4.0), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    refused = relaxer.relax([large, shared])
    assert [outcome.status for outcome in refused] == [Status.UNSUPPORTED] * 2
    assert "9 sites" in refused[0].detail
    assert "shared by several species" in refused[1].detail
    assert refused[0].n_tokens is None


# --- symmetry ------------------------------------------------------------------------------------


def test_a_projected_change_keeps_the_space_group_and_the_allowed_part():
    """Rutile: a = b, right angles, and oxygen on (u, u, 0)."""
    u = 0.305
    fracs = [[0, 0, 0], [0.5] * 3, [u, u, 0], [-u, -u, 0], [0.5 + u, 0.5 - u, 0.5]]
    fracs.append([0.5 - u, 0.5 + u, 0.5])
    rutile = Geometry(np.diag([4.6, 4.6, 2.96]), np.array(fracs), np.array([22, 22, 8, 8, 8, 8]))
    rng = np.random.default_rng(0)
    change = Delta(rng.normal(0, 0.1, 6), rng.normal(0, 0.02, (6, 3)))
    kept = project(rutile, change, space_group(rutile, 0.01))
    relaxed = apply_delta(rutile, kept, rutile.numbers)
    assert symmetry(relaxed, 1e-5)[0] == symmetry(rutile, 1e-5)[0] == 136
    assert kept.cellpar[0] == pytest.approx(change.cellpar[:2].mean(), abs=0.01)
    again = project(rutile, kept, space_group(rutile, 0.01))
    assert np.allclose(again.cellpar, kept.cellpar, atol=1e-9)
    assert np.allclose(again.frac_coords, kept.frac_coords, atol=1e-12)
    expected = (change.frac_coords[2, :2].sum() - change.frac_coords[3, :2].sum()) / 8
    expected += (change.frac_coords[4] - change.frac_coords[5]) @ [1, -1, 0] / 8
    assert kept.frac_coords[2] == pytest.approx([expected, expected, 0], abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_without_symmetry_a_change_is_left_alone(seed):
    rng = np.random.default_rng(seed)
    crystal = random_geometry((4, 5, 6, 80, 95, 100), [3, 8, 8, 22], seed)
    change = Delta(rng.normal(0, 0.1, 6), rng.normal(0, 0.02, (4, 3)))
    kept = project(crystal, change, space_group(crystal, 0.01))
    assert np.allclose(kept.cellpar, change.cellpar, atol=1e-9)
    assert np.allclose(kept.frac_coords, change.frac_coords, atol=1e-12)


# --- batches -------------------------------------------------------------------------------------


def test_long_inputs_go_through_in_small_batches(tiny_folder, monkeypatch):
    """28 structures of up to 232 sites at once took more than 20 GB."""
    relaxer = TextRelaxer(tiny_folder, settings=RelaxSettings(batch_size=4))
    sizes = []
    decode = relaxer._decode
    monkeypatch.setattr(relaxer, "_decode", lambda batch: sizes.append(len(batch)) or decode(batch))
    monkeypatch.setattr("t2relax.relaxer.MAX_ATTENTION", 2 * 60**2)
    structures = [silver(4.0)] * 6 + [silver(4.0) * (2, 2, 2)] * 2
    together = relaxer.relax(structures)
    assert sizes == [4, 2, 1, 1]
    assert [outcome.n_tokens for outcome in together[-2:]] == [together[-1].n_tokens] * 2


def test_disorder_and_more_sites_than_trained_on_are_unsupported(tiny_folder):
    alloy = Structure(Lattice.cubic(4), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    mixed, long = TextRelaxer(tiny_folder).relax([alloy, silver(4.0) * (3, 3, 1)])
    assert {mixed.status, long.status} == {Status.UNSUPPORTED}
    assert long.detail == "9 sites: trained on at most 8"


# --- checkpoint and training ---------------------------------------------------------------------


def test_a_checkpoint_of_another_codec_is_refused(tiny_folder, tmp_path):
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads((tmp_path / "t2relax.json").read_text())
    content["codec_version"] = 0
    (tmp_path / "t2relax.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="trained with codec 0"):
        t5.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        t5.load(tmp_path)


def test_all_that_decides_an_answer_beside_the_weights_has_a_name(tiny_folder, tmp_path):
    rules = {name: decoding_identity(MODELS[name])[name] for name in MODELS if name[:2] == "t5"}
    assert rules["t5"]["mode"] == "constrained"
    assert rules["t5"]["max_sites"] == 60
    assert rules["t5"]["vocabulary_sha256"] == load(checkpoint.CHECKPOINT).tokenizer.sha256
    assert rules["t5-best8"]["samples"] == 8
    assert rules["t5-tta"]["writings"] == 8
    assert len({json.dumps(rule) for rule in rules.values()}) == len(rules)
    assert list(decoding_identity(resolve("t5+mace"))) == ["t5"]
    assert decoding_identity(MODELS["mace"]) == {}
    before = checkpoint.decoding_identity(tiny_folder)
    shutil.copytree(tiny_folder, tmp_path / "copy")
    assert checkpoint.decoding_identity(tmp_path / "copy") == before
    for name, old, new in (
        (checkpoint.CODEC_FILE, '"max_sites": 8', '"max_sites": 9'),
        ("config.json", '"d_ff": 64', '"d_ff": 65'),
    ):
        file = tmp_path / "copy" / name
        text = file.read_text()
        file.write_text(text.replace(old, new))
        assert checkpoint.decoding_identity(tmp_path / "copy") != before
        file.write_text(text)


@pytest.mark.slow
def test_a_run_does_not_go_on_with_another_decoding_rule(
    tiny_folder, tmp_path, monkeypatch, capsys
):
    """Two different answers stood under one identity: the hash of the weights."""
    command = ["--models", f"mine=t5:{tiny_folder}", "--limit", "1", "--out", str(tmp_path)]
    assert run.main(command) == 0
    assert run.main(command) == 0
    rule = checkpoint.decoding_identity
    monkeypatch.setattr(checkpoint, "decoding_identity", lambda *a, **k: rule(*a, **k) | {"x": 3})
    capsys.readouterr()
    assert run.main(command) == 2
    assert "decoding.mine.x" in capsys.readouterr().err


@pytest.mark.slow
def test_training_writes_a_checkpoint_and_resumes(tmp_path, write_lemat, lemat_frame):
    frames = []
    for k in range(6):
        frames += [
            lemat_frame(silver(4.0 + k / 10), f"mp-{k}", 0),
            lemat_frame(silver(4.1), f"mp-{k}", 1),
        ]
    data = str(write_lemat(tmp_path / "train.parquet", frames))
    command = ["--data", data, "--val", data, "--out", str(tmp_path / "out"), "--batch-size", "4"]
    command += ["--eval-steps", "2", "--workers", "0", "--set", "num_layers=1", "--set", "d_ff=32"]
    command += ["--steps", "4"]
    assert train.main([*command, "--minutes", "0"]) == 0  # it stops after its first step
    assert train.main(command) == 0
    content = json.loads((tmp_path / "out" / "t2relax.json").read_text())["training"]
    assert content["steps"] == 4
    assert content["n_pairs"] == 6
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert [row["step"] for row in history if "eval_score" in row] == [1, 2, 4]
    (outcome,) = TextRelaxer(tmp_path / "out").relax([silver(4.2)])
    assert outcome.n_tokens == len(template(np.array([47]), TOKENIZER).ids)


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    """A T5 1.1 as the hub has it: SentencePiece as tokenizer.json, padded, untied embeddings."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("hub")
    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁Na", "Na", "▁+", "0", "1", "9", ".", "_", "cell"]
    fast = Fast(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=2))
    fast.normalizer = normalizers.Replace("\n", " ")
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Metaspace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=fast, **special).save_pretrained(folder)
    torch.manual_seed(0)
    shape = TINY | {"vocab_size": 40, "tie_word_embeddings": False, "decoder_start_token_id": 0}
    T5ForConditionalGeneration(T5Config(**shape)).save_pretrained(folder)
    return folder


def test_a_published_checkpoint_gets_our_vocabulary(hub_folder):
    before = T5ForConditionalGeneration.from_pretrained(hub_folder, dtype=torch.float32)
    after = from_pretrained(str(hub_folder), TOKENIZER)
    assert after.shared.weight.shape == after.lm_head.weight.shape == (len(TOKENIZER), 32)
    assert after.config.vocab_size == len(TOKENIZER)
    sodium, number, newline = TOKENIZER.ids("Na", " +01.9", "\n")
    assert torch.equal(after.shared.weight[sodium], before.shared.weight[4])  # ▁Na
    spelt = before.lm_head.weight[[6, 7, 8, 10, 9]].mean(dim=0)  # ▁+ 0 1 . 9
    assert torch.allclose(after.lm_head.weight[number], spelt, atol=1e-6)
    assert after.shared.weight[newline].isfinite().all()
    assert torch.equal(
        after.encoder.block[0].layer[0].SelfAttention.q.weight,
        before.encoder.block[0].layer[0].SelfAttention.q.weight,
    )
    geometry = Geometry.of(sample_structures()[1])
    grammar = template(geometry.numbers, TOKENIZER)
    (chosen,) = decode_constrained(
        after.eval(), [TOKENIZER.source(Crystal.of(geometry))], [grammar]
    )
    read_delta(TOKENIZER.decode(chosen.ids[0].tolist()), Crystal.of(geometry))


def test_an_init_that_is_not_there_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="--init"):
        from_pretrained(str(tmp_path), TOKENIZER)


def test_several_inits_start_from_the_mean_of_their_weights():
    models = [t5.new_model(TOKENIZER, seed, **TINY) for seed in (0, 1)]
    vectors = [model.shared.weight.detach().clone() for model in models]
    mixed = average(models)
    assert torch.allclose(mixed.shared.weight, (vectors[0] + vectors[1]) / 2)
    assert mixed.lm_head.weight is mixed.shared.weight
    with pytest.raises(UserError, match="shapes"):
        average([mixed, t5.new_model(TOKENIZER, num_decoder_layers=2, **TINY)])


def test_training_on_nothing_is_the_users_mistake(tmp_path, capsys):
    command = ["--data", str(tmp_path / "no.npz"), "--val", "x", "--out", str(tmp_path)]
    assert train.main(command) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1 / 3), (0.4, 0.4 / 3 + 0.6 / 100)])
def test_sizes_are_drawn_as_evenly_as_asked(share, expected):
    torch.manual_seed(0)
    sizes = [2] * 90 + [3] * 9 + [16]
    sampler = train.EvenSampler(4, sizes, share)
    drawn = [i for _ in range(100) for i in sampler]
    assert len(drawn) == 100 * len(sampler) == 10_000
    assert np.mean([sizes[i] == 16 for i in drawn]) == pytest.approx(expected, abs=0.02)
    assert set(drawn) == set(range(100))


def test_a_share_beyond_one_is_a_mistake_of_the_command_line():
    with pytest.raises(SystemExit) as mistake:
        train.parse(["--data", "a", "--val", "b", "--out", "c", "--even-sizes", "1.5"])
    assert mistake.value.code == 2


def test_a_record_says_what_the_training_began_with(tiny_folder):
    assert train.start_of("google/flan-t5-small") == "google/flan-t5-small"
    found = train.start_of(str(tiny_folder))
    assert found["training"] == {"from": "scratch", "max_sites": 8}
    assert found["weights"].startswith("sha256:")


@pytest.mark.slow
@pytest.mark.parametrize("mode", get_args(Mode))
def test_the_packaged_checkpoint_keeps_the_contract(mode):
    outcomes = check_relaxer(TextRelaxer(mode=mode))
    if mode != "free":
        assert {outcome.status for outcome in outcomes} == {Status.OK}


def stages(training):
    """The record of a training and those of all that it began with."""
    yield training
    starts = training["from"]
    for start in [] if starts == "scratch" else starts if isinstance(starts, list) else [starts]:
        yield from stages(start["training"])


def test_the_packaged_checkpoint_says_what_it_was_trained_on():
    content = json.loads((checkpoint.CHECKPOINT / "t2relax.json").read_text())
    both, own = {"embedded-v1/train", "substitution/train"}, {"embedded-v1/val", "perturbed-v1/val"}
    for stage in stages(content["training"]):
        assert set(stage["data"]) in (both, both | {"embedded-v2/train"})
        assert set(stage["validation_data"]) <= own | {"substitution/val"}
    told = content["training"]["confidence"]
    assert told["n"] == 977
    assert told["no_change_above"] is None
    assert checkpoint.weights().stat().st_size < 30_000_000
    assert "trained from scratch" in (checkpoint.CHECKPOINT / "README.md").read_text()


def test_the_packaged_decoder_only_model_is_as_large_as_the_t5_and_saw_the_same():
    ours, other = (
        json.loads((Path(MODELS[name].kwargs["path"]) / "t2relax.json").read_text())["training"]
        for name in ("gpt", "t5")
    )
    assert ours["from"] == "scratch"
    assert ours["identity"]["architecture"] == "causal"
    assert ours["data"] == other["data"]
    assert ours["n_parameters"] == pytest.approx(other["n_parameters"], rel=0.03)
    assert checkpoint.weights(MODELS["gpt"].kwargs["path"]).stat().st_size < 6_000_000


def test_the_equal_data_checkpoint_saw_the_embedded_training_split_alone():
    folder = Path(MODELS["t5-equal"].kwargs["path"])
    training = json.loads((folder / "t2relax.json").read_text())["training"]
    assert training["from"] == "scratch"
    assert set(training["data"]) == {"embedded-v1/train"}
    assert set(training["validation_data"]) == {"embedded-v1/val"}


def test_cost_is_measured_on_crystals_that_the_codec_takes(tmp_path):
    from studies import t5_scaling as scaling

    for n_sites in scaling.SITES:
        structure = scaling.crystal(n_sites, np.random.default_rng(0))
        assert len(structure) == n_sites
        assert structure.volume == pytest.approx(20 * n_sites)
        assert_text_comes_back(Crystal.of(Geometry.of(structure)))
    assert set(scaling.points()) >= {(1, 16), (60, 16), (4, 1), (4, 256)}
    rows = [
        {"sites": n, "batch": b, "seconds_per_structure": 0.01 * n, "memory_mb": 1.0 + b}
        for n, b in scaling.points()
    ]
    scaling.draw(rows, tmp_path / "cost")
    assert sorted(path.name for path in (tmp_path / "cost").iterdir()) == [
        "scaling.csv",
        "scaling.svg",
    ]
    assert (tmp_path / "cost" / "scaling.csv").read_text().splitlines()[1] == "1,16,0.01,17"


def test_a_training_that_goes_on_counts_what_it_took_before(tmp_path):
    assert train._minutes(None) == 0
    history = [
        {"loss": 1.0},
        {"eval_score": 0.5, "minutes": 3.5},
        {"eval_score": 0.6, "minutes": 7},
    ]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    assert train._minutes(str(tmp_path)) == 7
