"""The published weights of known potentials, one entry each.

An entry is all that the registry, the loader of the potential's package, and the reports on
training sets know of a set of weights. To add weights of a package that is listed here, add an
entry; nothing else has to change. This module imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.core.training_cost import TrainingCost
from benchmarks.core.training_data import TRAINING_SETS

MIXED: Final = "PBE(+U)"
"""PBE, with a Hubbard U for some transition metals in oxides and fluorides (Materials Project)."""
_MPTRJ: Final = "MPtrj (Materials Project)"
_MP_R2SCAN: Final = "MP-r2SCAN (Materials Project)"
_MATPES: Final = ("MatPES (Materials Project)",)
_NEQUIX_README: Final = "https://github.com/atomicarchitects/nequix#training-omatoam-base-models"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWeights:
    """One set of published weights: what a row says of it, and where its package keeps it."""

    name: str
    """The name of the model in the registry."""
    package: Literal["chgnet", "diep", "mace", "matgl", "matgl2", "nequix", "sevenn"]
    label: str
    licence: str
    training_data: tuple[str, ...]
    """Names in `TRAINING_SETS`."""
    functional: str = MIXED
    file: str
    """The file or folder in the installed package (chgnet, diep, sevenn), the release and file
    (mace), the commit and file or folder (nequix, matgl2), or the repository on the Hub (matgl)."""
    package_name: str = ""
    """The name by which the package itself knows the weights, where it needs one."""
    head: str = ""
    """The head of weights that have several, one for each functional."""
    nacl_energy: float | None = None
    """The energy that these weights gave rocksalt NaCl when the code was written [eV/atom]. Where
    it is None, the energy is held to what the functional allows."""
    sha256: str = ""
    """Of `state.pt`, for weights of matgl 2, which matgl 4 loads and gets wrong."""
    unfitted_elements: frozenset[int] = frozenset()
    """Atomic numbers of the package's elements to which these weights were not fitted."""
    older: str = ""
    """The name of an older version of these weights, see `name_at_hand`."""
    training_cost: TrainingCost | None = None
    """The computing time that is published for the training of these very weights. None if there
    is none: of CHGNet, arXiv:2412.20796 says 8.3 days on one A100, but not of which version."""


def _a100(hours: float, source: str) -> TrainingCost:
    return TrainingCost(hours=hours, device="NVIDIA A100", source=source)


def _chgnet(name: str, label: str, *training_data: str, **fields: object) -> PublishedWeights:
    about = {"licence": "BSD-3-Clause (modified)", "training_data": training_data} | fields
    return PublishedWeights(name=name, package="chgnet", label=label, **about)  # type: ignore[arg-type]


def _mace(
    name: str, label: str, package_name: str, file: str, *training_data: str, **fields: Any
) -> PublishedWeights:
    about: dict[str, Any] = {"licence": "MIT"} | fields
    return PublishedWeights(
        name=name,
        package="mace",
        label=label,
        training_data=training_data,
        package_name=package_name,
        file=file,
        **about,
    )


def _matpes(architecture: str, functional: str) -> PublishedWeights:
    """The weights for matgl 4. Those of 2025.1 had messages that went the other way."""
    name = f"{architecture}-matpes-{functional}".lower()
    return PublishedWeights(
        name=name,
        older=f"{name}-2025.1",
        package="matgl",
        label=f"{architecture} MatPES-{functional}",
        licence="BSD-3-Clause",
        training_data=_MATPES,
        functional=functional,
        file=f"{architecture}-PES-MatPES-{functional}-2025.2",
    )


def _matgl2(
    name: str, folder: str, sha256: str, nacl_energy: float, **fields: Any
) -> PublishedWeights:
    """The weights for matgl 2.1.2, whose messages went the other way than in later ones."""
    about: dict[str, Any] = {"training_data": _MATPES} | fields
    return PublishedWeights(
        name=name,
        package="matgl2",
        licence="BSD-3-Clause",
        file=f"e9cde2291acd0b4c4a342428e7dd5e4d596b7bf9/pretrained_models/{folder}",
        sha256=sha256,
        nacl_energy=nacl_energy,
        **about,
    )


def _sevenn(
    name: str, label: str, file: str, nacl_energy: float, **fields: Any
) -> PublishedWeights:
    about: dict[str, Any] = {"training_data": (_MPTRJ,)} | fields
    return PublishedWeights(
        name=name,
        package="sevenn",
        label=label,
        licence="MIT",
        file=f"pretrained_potentials/SevenNet_{file}.pth",
        nacl_energy=nacl_energy,
        **about,
    )


def _nequix(
    name: str, label: str, nacl_energy: float, *training_data: str, training_cost: TrainingCost
) -> PublishedWeights:
    return PublishedWeights(
        name=name,
        package="nequix",
        label=label,
        licence="MIT",
        training_data=training_data,
        file=f"9c852a9c4cce69ae5e75bc5a2cf670be21ff8c28/models/{name}.nqx",
        nacl_energy=nacl_energy,
        training_cost=training_cost,
    )


_ENTRIES: Final = (
    _chgnet(
        "chgnet",
        "CHGNet 0.3.0",
        _MPTRJ,
        file="pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
        package_name="0.3.0",
        nacl_energy=-3.6664,
    ),
    _chgnet(
        "chgnet-0.2.0",
        "CHGNet 0.2.0",
        _MPTRJ,
        file="pretrained/0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar",
        package_name="0.2.0",
        nacl_energy=-3.6866,
    ),
    _chgnet(
        "chgnet-r2scan",
        "CHGNet r2SCAN",
        _MPTRJ,
        _MP_R2SCAN,
        functional="r2SCAN",
        file="pretrained/r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
        package_name="r2scan",
        nacl_energy=-6.8687,
        unfitted_elements=frozenset({70}),  # no atomic energy of Yb was fitted
    ),
    _mace(
        "mace-mp-0",
        "MACE-MP-0",
        "medium",
        "mace_mp_0/2023-12-03-mace-128-L1_epoch-199.model",
        _MPTRJ,
        # for the medium model only; 200 epochs on 40 to 80 GPUs
        training_cost=_a100(2600, "https://doi.org/10.48550/arXiv.2401.00096"),
    ),
    _mace(
        "mace-mp-0-small",
        "MACE-MP-0 small",
        "small",
        "mace_mp_0/2023-12-10-mace-128-L0_energy_epoch-249.model",
        _MPTRJ,
    ),
    _mace(
        "mace-mp-0-large",
        "MACE-MP-0 large",
        "large",
        "mace_mp_0/MACE_MPtrj_2022.9.model",
        _MPTRJ,
    ),
    _mace(
        "mace-mpa-0",
        "MACE-MPA-0",
        "medium-mpa-0",
        "mace_mpa_0/mace-mpa-0-medium.model",
        _MPTRJ,
        "sAlex (Alexandria)",
    ),
    _mace(
        "mace-omat-0",
        "MACE-OMAT-0",
        "medium-omat-0",
        "mace_omat_0/mace-omat-0-medium.model",
        "OMat24",
        licence="ASL (non-commercial)",
    ),
    # PBE's energies are without Materials Project's correction.
    _sevenn("sevennet-0", "SevenNet-0", "0__11Jul2024/checkpoint_sevennet_0", -3.3827),
    _sevenn("sevennet-l3i5", "SevenNet-l3i5", "l3i5/checkpoint_l3i5", -3.3854),
    _sevenn(
        "sevennet-mf-0",
        "SevenNet-MF-0 PBE",
        "MF_0/checkpoint_sevennet_mf_0",
        -3.3858,
        head="PBE",
        training_data=(_MPTRJ, _MP_R2SCAN),
    ),
    _sevenn(
        "sevennet-mf-0-r2scan",
        "SevenNet-MF-0 r2SCAN",
        "MF_0/checkpoint_sevennet_mf_0",
        -6.8896,
        head="R2SCAN",
        training_data=(_MPTRJ, _MP_R2SCAN),
        functional="r2SCAN",
    ),
    _nequix(
        "nequix-mp-1",
        "Nequix MP-1",
        -3.3830,
        _MPTRJ,
        # 125 h on 4 GPUs; later versions of the paper give 100 h for its faster kernels
        training_cost=_a100(500, "https://arxiv.org/abs/2508.16067v1"),
    ),
    _nequix(
        "nequix-oam-1",
        "Nequix OAM-1",
        -3.3856,
        "OMat24",
        "sAlex (Alexandria)",
        _MPTRJ,
        # 10 h on 4 GPUs, after the 240 h of OMat-1, from which it starts
        training_cost=_a100(280, _NEQUIX_README),
    ),
    _nequix(
        "nequix-omat-1",
        "Nequix OMat-1",
        -3.3855,
        "OMat24",
        training_cost=_a100(240, _NEQUIX_README),  # 60 h on 4 GPUs
    ),
    _matpes("M3GNet", "PBE"),
    _matpes("TensorNet", "PBE"),
    _matpes("M3GNet", "r2SCAN"),
    _matpes("TensorNet", "r2SCAN"),
    _matgl2(
        "m3gnet-mp-2021",
        "M3GNet-MP-2021.2.8-PES",
        "a9aa723705bd1a242ec8749332f137811c4a94e17995a564f8f94a9aca68061b",
        -3.3659,
        label="M3GNet MP-2021.2.8",
        training_data=("MPF.2021.2.8 (Materials Project)",),
    ),
    _matgl2(
        "m3gnet-matpes-pbe-2025.1",
        "M3GNet-MatPES-PBE-v2025.1-PES",
        "9f710eac88ec2c666c8e488883c59768cf11c116f177e9d82896ae56f3fc338d",
        -3.3670,
        label="M3GNet MatPES-PBE 2025.1",
        functional="PBE",
    ),
    _matgl2(
        "m3gnet-matpes-r2scan-2025.1",
        "M3GNet-MatPES-r2SCAN-v2025.1-PES",
        "b9b3234afc655b282c7930ff32cb5a5f98edde4a93475b0d4605b59c161fe483",
        -6.8770,
        label="M3GNet MatPES-r2SCAN 2025.1",
        functional="r2SCAN",
    ),
    _matgl2(
        "tensornet-matpes-pbe-2025.1",
        "TensorNet-MatPES-PBE-v2025.1-PES",
        "d2dfa51a65d23a47fd935eb0628177d2a1088584562091ef3350ce3a002fce6a",
        -3.3562,
        label="TensorNet MatPES-PBE 2025.1",
        functional="PBE",
    ),
    _matgl2(
        "tensornet-matpes-r2scan-2025.1",
        "TensorNet-MatPES-r2SCAN-v2025.1-PES",
        "b1f87297bac09ada6f0e2f41d362d784f894ff0f1f031478187c55ec661b71ba",
        -6.8496,
        label="TensorNet MatPES-r2SCAN 2025.1",
        functional="r2SCAN",
    ),
    PublishedWeights(
        name="diep-matpes-r2scan",
        package="diep",
        label="DIEP MatPES-r2SCAN",
        licence="BSD-3-Clause",
        training_data=_MATPES,
        functional="r2SCAN",
        file="pretrained_models/diep_fold1",
        nacl_energy=-6.8906,
        training_cost=TrainingCost(
            hours=79, device="NVIDIA L40S", source="https://pypi.org/project/diep/2.0.0/"
        ),  # the first of 300 epochs on a V100
    ),
)

PUBLISHED_WEIGHTS: Final[Mapping[str, PublishedWeights]] = {entry.name: entry for entry in _ENTRIES}
"""Every entry, by the name of the model."""


def published_by(package: str) -> dict[str, PublishedWeights]:
    """The weights that a package loads, by the name of the model."""
    return {name: entry for name, entry in PUBLISHED_WEIGHTS.items() if entry.package == package}


def local_weights(name: str, file: str) -> Path | None:
    """Find published weights in the folder that `T2_WEIGHTS` names, as `NAME/FILE` or `FILE`.

    Args:
        name: The name of the model.
        file: The name of its file or folder.
    """
    folder = os.environ.get("T2_WEIGHTS")
    if not folder:
        return None
    places = (Path(folder) / name / file, Path(folder) / file)
    return next((path for path in places if path.exists()), None)


def name_at_hand(name: str) -> str:
    """The name of published weights, or of the older ones that `T2_WEIGHTS` has in their place."""
    entry = PUBLISHED_WEIGHTS.get(name)
    older = PUBLISHED_WEIGHTS.get(entry.older) if entry else None
    if entry is None or older is None or local_weights(name, Path(entry.file).name):
        return name
    return older.name if local_weights(older.name, Path(older.file).name) else name


def models_trained_on(training_set: str) -> tuple[str, ...]:
    """The labels of published models that were trained on a set, also of some not listed here."""
    entries = PUBLISHED_WEIGHTS.values()
    listed = (entry.label for entry in entries if training_set in entry.training_data)
    return (*listed, *TRAINING_SETS[training_set].other_models)
