"""What a model takes back of displacements: of the starts, and of others of the same size."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.data import load
from studies.displacements import INPUTS, NO_CHANGE, inputs, main, moved
from tests.conftest import one_line


def test_all_inputs_are_as_far_from_the_relaxed_places():
    dataset = load("embedded-v3")
    name = next(n for i, n in enumerate(dataset.ids) if moved(*dataset.geometries(i)[::-1]) > 0.1)
    initial, final = dataset.geometries(dataset.ids.index(name))
    given = list(inputs(name, initial, final))
    assert [moved(final, each) for each in given] == pytest.approx([moved(final, initial)] * 4)
    cells = [initial.lattice, final.lattice, final.lattice, initial.lattice]
    assert all(np.array_equal(g.lattice, cell) for g, cell in zip(given, cells, strict=True))
    again = list(inputs(name, initial, final))
    assert np.array_equal(again[2].frac_coords, given[2].frac_coords)


def test_a_model_that_changes_nothing_takes_nothing_back(tmp_path, capsys):
    command = ["--models", "identity,bond-balance", "--out", str(tmp_path)]
    assert main(command) == 0
    table = pd.read_csv(tmp_path / "displacements.csv")
    means = table.pivot_table(index="input", columns="model", values="left")
    assert list(means.index.sort_values()) == sorted(INPUTS)
    assert means["identity"].to_numpy() == pytest.approx(means[NO_CHANGE].to_numpy(), abs=1e-6)
    assert (means["bond-balance"] < means[NO_CHANGE]).all()
    share = 1 - means.loc["start", "bond-balance"] / means.loc["start", NO_CHANGE]
    page = capsys.readouterr().out
    assert (tmp_path / "displacements.md").read_text() == page[:-1]
    assert f", {share:.2f} [" in page.split("| start |")[1].split("\n")[0]
    assert "0.00 [0.00, 0.00]" in page


def test_starts_whose_atoms_stay_are_refused(tmp_path):
    from studies.displacements import measure

    one_line(lambda: measure(["identity"], "../nowhere.parquet"), "nowhere")
