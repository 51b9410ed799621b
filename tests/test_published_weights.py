"""Published weights say of four crystals what they said before, what DFT says, and nothing else.

Those of other environments are asked there (`tests.four_crystals`), and those that are not on this
machine are skipped: `make env-sevenn env-matgl2`, and `T2_WEIGHTS` for Nequix and matgl 2.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.core import RelaxSettings, UserError
from benchmarks.core.published_weights import PUBLISHED_WEIGHTS, local_weights
from benchmarks.models.environments import interpreter, locate_model, search_path
from benchmarks.models.registry import MODELS
from tests.four_crystals import CRYSTALS, measure

pytestmark = pytest.mark.slow

MEASURED = {
    "chgnet": ((-3.6664, -5.3122, -6.3102, -4.0833), (5.697, 5.461, 4.257, 3.617)),
    "chgnet-0.2.0": ((-3.6866, -5.3699, -6.3167, -4.0671), (5.695, 5.471, 4.254, 3.614)),
    "chgnet-r2scan": ((-6.8687, -8.7333, -8.0399, -10.8180), (5.585, 5.441, 4.203, 3.578)),
    "diep-matpes-r2scan": ((-6.8906, -8.7634, -8.0505, -10.8369), (5.595, 5.439, 4.198, 3.575)),
    "sevennet-0": ((-3.3827, -5.4008, -5.9735, -4.0962), (5.687, 5.463, 4.255, 3.613)),
    "sevennet-l3i5": ((-3.3854, -5.4219, -5.9754, -4.0920), (5.692, 5.467, 4.255, 3.613)),
    "sevennet-mf-0": ((-3.3858, -5.3756, -5.9645, -4.0851), (5.694, 5.464, 4.257, 3.613)),
    "sevennet-mf-0-r2scan": ((-6.8896, -8.7184, -8.0458, -10.8179), (5.595, 5.438, 4.200, 3.577)),
    "nequix-mp-1": ((-3.3830, -5.4170, -5.9730, -4.0947), (5.710, 5.504, 4.257, 3.626)),
    "nequix-oam-1": ((-3.3856, -5.4156, -5.9775, -4.0922), (5.699, 5.490, 4.256, 3.627)),
    "nequix-omat-1": ((-3.3855, -5.4180, -5.9273, -3.7444), (5.707, 5.436, 4.258, 3.625)),
    "m3gnet-mp-2021": ((-3.3659, -5.4178, -5.9505, -4.0964), (5.692, 5.456, 4.261, 3.618)),
    "m3gnet-matpes-pbe-2025.1": (
        (-3.3670, -4.8941, -5.9047, -3.7398),
        (5.699, 5.380, 4.260, 3.634),
    ),
    "m3gnet-matpes-r2scan-2025.1": (
        (-6.8770, -8.0977, -8.0234, -10.8440),
        (5.586, 5.409, 4.190, 3.571),
    ),
    "tensornet-matpes-pbe-2025.1": (
        (-3.3562, -5.2407, -5.8644, -3.7593),
        (5.701, 5.475, 4.254, 3.623),
    ),
    "tensornet-matpes-r2scan-2025.1": (
        (-6.8496, -8.5771, -7.9898, -10.8198),
        (5.576, 5.416, 4.196, 3.570),
    ),
}
"""Energy [eV/atom] of NaCl, Si, MgO and Cu at 5.64, 5.43, 4.21 and 3.61 Å, and relaxed lattice
constant [Å]. Energies of the relaxed NaCl are up to 2 meV/atom lower (M3GNet-MP -3.3675)."""

ENERGIES = {
    "MP, corrected": (-3.69, -5.42, -6.32, -4.09),
    "MP": (-3.385, -5.42, -5.975, -4.09),
    "PBE": (-3.385, -5.42, -5.92, -3.745),
    "r2SCAN": (-6.88, -8.74, -8.04, -10.83),
}
"""About the energies of VASP [eV/atom], as most of the weights have learned them. MatPES and OMat24
(PBE) have other pseudopotentials of Cu and Mg than Materials Project (MP), whose corrections of Cl
and O (-0.614 and -0.687 eV) are in CHGNet's energies."""

LATTICE = {"PBE": (5.70, 5.47, 4.26, 3.63), "r2SCAN": (5.57, 5.42, 4.19, 3.60)}
"""PBE: Haas, Tran & Blaha, Phys. Rev. B 79, 085104 (2009). Of r2SCAN, which is near to it, the
experiment without zero-point vibration: Hao et al., Phys. Rev. B 85, 014111 (2012). [Å]"""

WRONG_SILICON = {
    "chgnet": (-5.3122, 5.461),
    "m3gnet-matpes-pbe-2025.1": (-4.8941, 5.380),
    "m3gnet-matpes-r2scan-2025.1": (-8.0977, 5.409),
    "tensornet-matpes-pbe-2025.1": (-5.2407, 5.475),
    "tensornet-matpes-r2scan-2025.1": (-8.5771, 5.416),
}
"""Faults of the weights themselves: the energy of Si is 0.11 to 0.64 eV/atom too high, and
M3GNet's lattice constant by PBE is 1.6 % too small [eV/atom, Å]."""


def asked(model):
    """What the weights say, in their own environment."""
    spec = MODELS[model]
    try:
        python = interpreter(spec)
        locate_model(spec, offline=True)
    except UserError as error:
        pytest.skip(str(error))
    if python == sys.executable:
        return measure(model)
    done = subprocess.run(
        [python, "-m", "tests.four_crystals", model],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | search_path(python),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def kind(model):
    known = PUBLISHED_WEIGHTS[model]
    if known.package == "chgnet" and known.functional != "r2SCAN":
        return "MP, corrected"
    of_mp = known.functional == "PBE(+U)" and model != "nequix-omat-1"
    return "MP" if of_mp else known.functional.removesuffix("(+U)")


def test_all_weights_are_here_but_those_that_only_the_hub_or_a_release_has():
    unseen = {
        name for name, known in PUBLISHED_WEIGHTS.items() if known.package in {"mace", "matgl"}
    }
    assert set(MEASURED) == set(PUBLISHED_WEIGHTS) - unseen


@pytest.mark.parametrize("model", MEASURED)
def test_they_say_what_was_measured_and_forces_and_stress_are_slopes_of_the_energy(model):
    """M3GNet of 2021 has radial functions that are not smooth where neighbours come and go."""
    energies, constants = MEASURED[model]
    said = asked(model)
    assert list(said["energy"].values()) == pytest.approx(energies, abs=5e-4)
    assert list(said["lattice"].values()) == pytest.approx(constants, abs=3e-3)
    slopes = said["asymmetric"]
    assert slopes["largest force"] > 0.2
    assert slopes["largest stress"] > 0.02
    assert slopes["forces"] < 4e-3
    assert slopes["stress"] < (6e-4 if model == "m3gnet-mp-2021" else 2e-4)


@pytest.mark.parametrize("model", MEASURED)
def test_what_was_measured_is_what_dft_says(model):
    """Energies to 0.07 eV/atom; lattice constants to 0.7 % (PBE) and 1 % (r2SCAN)."""
    functional = PUBLISHED_WEIGHTS[model].functional.removesuffix("(+U)")
    energies, constants = (dict(zip(CRYSTALS, row, strict=True)) for row in MEASURED[model])
    expected = dict(zip(CRYSTALS, ENERGIES[kind(model)], strict=True))
    lattice = dict(zip(CRYSTALS, LATTICE[functional], strict=True))
    width = {"PBE": 7e-3, "r2SCAN": 1e-2}[functional]
    wrong = {name for name in CRYSTALS if abs(energies[name] - expected[name]) > 0.07}
    far = {name for name in CRYSTALS if abs(constants[name] / lattice[name] - 1) > width}
    assert wrong == ({"Si"} if model in WRONG_SILICON else set())
    assert far == ({"Si"} if model == "m3gnet-matpes-pbe-2025.1" else set())
    if model in WRONG_SILICON:
        assert (energies["Si"], constants["Si"]) == WRONG_SILICON[model]


def test_engines_stop_apart_in_a_flat_direction_and_meet_at_tighter_limits(tmp_path):
    """Layers of MgBr2 by TensorNet: 0.25 Å of c are 0.6 meV/atom and less than 0.1 GPa."""
    from baselines.potentials import matgl, matgl2, tensornet_conversion
    from benchmarks.core import GPA
    from benchmarks.data import load

    model = "tensornet-matpes-pbe-2025.1"
    path = local_weights(model, Path(matgl2.PUBLISHED[model].file).name)
    if path is None or not tensornet_conversion.PYTHON.is_file():
        pytest.skip("needs T2_WEIGHTS and .venv-matgl2")
    from baselines.potentials.matgl_batched import BatchedMatGL

    folder = tmp_path / "converted"
    tensornet_conversion.convert(path, folder)
    (start,) = (s.initial for s in load("embedded") if s.sample_id == "gpaw-C6-Mg-Br-0-pbe")
    tight = RelaxSettings(fmax=2e-4, max_stress=2e-4 * GPA, max_steps=1000)
    for settings, height, energy in ((RelaxSettings(), 0.247, 5.6e-4), (tight, 0.035, 0.0)):
        (one,), (other,) = (
            relaxer(str(folder), settings=settings).relax([start])
            for relaxer in (matgl.MatGL, BatchedMatGL)
        )
        assert one.status == other.status == "ok"
        c = other.structure.lattice.c - one.structure.lattice.c
        assert c == pytest.approx(height, abs=0.01)
        assert (one.energy - other.energy) / len(start) == pytest.approx(energy, abs=2e-5)
