"""M3GNet and TensorNet of matgl: the published models (MatPES, arXiv:2503.04070), or your own.

The published weights live on the Hugging Face Hub and come into matgl's own cache
(`~/.cache/matgl`). matgl reads its files without running code from them (`weights_only`), but
calls whatever name of whatever module they give, with their arguments: files that name anything but
a model of matgl are refused unless they are trusted.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from baselines.engines.ase_engine import AseRelaxer
from baselines.potentials.loading import (
    PBE,
    R2SCAN,
    TRUST,
    check_reference_energy,
    intact,
    loading,
    measured,
    nacl_energy,
    reference_energy,
)
from benchmarks.core import RelaxSettings, UserError
from benchmarks.core.files import READ_ERRORS
from benchmarks.core.published_weights import PublishedWeights, local_weights, published_by

FILES = ("model.pt", "state.pt", "model.json")
"""The files of a saved model of matgl."""
MODELS = {
    "matgl": ("CHGNet", "M3GNet", "MEGNet", "QET", "SO3Net", "TensorNet"),
    "diep": ("DIEP",),
}
"""The classes of models that a file may name, by library: they compute and do nothing else."""
OWNER = "materialyze"
"""matgl's organisation on the Hub."""


PUBLISHED = published_by("matgl")


class MatGL(AseRelaxer):
    """A potential of matgl through ASE, in float32.

    Args:
        model: A name in `PUBLISHED`, or the folder of a saved `Potential`.
        trust: The files may name any code, which is run.
        settings: Settings of the relaxation; the seed and the batch size are not used.

    Raises:
        UserError: If the files are not there and cannot be fetched, cannot be loaded, name code
            that is no model of matgl without `trust`, were written by an older matgl, or give
            NaCl another energy than they should.
    """

    def __init__(
        self,
        model: str,
        *,
        trust: bool = False,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        from pymatgen.core import Element

        folder = weights(model, offline=settings.offline)
        potential = calculator(folder, settings.device, trust=trust)
        if model in PUBLISHED:
            check_reference_energy(potential, reference_energy(PUBLISHED[model]), model)
        else:
            check_own_energy(potential, folder)
        elements = frozenset(Element(symbol).Z for symbol in potential.element_types)
        super().__init__(
            potential,
            elements=elements,
            settings=settings,
        )


def calculator(folder: Path, device: str = "cpu", *, trust: bool = False) -> Any:
    """Build an ASE calculator from a saved `Potential`: energy eV, forces eV/Å, stress eV/Å^3.

    Args:
        folder: The folder of the files.
        device: `cpu` or `cuda`.
        trust: Run whatever code the files name.

    Raises:
        UserError: The files hold none, one of an older matgl, or without `trust` name code that is
            no model of matgl.
    """
    with loading(folder, code="matgl does not read that, with or without --trust"):
        from matgl.ext.ase import PESCalculator

        if not trust:
            refuse_foreign(folder)
        # its default, GPa, is not ASE's unit
        return PESCalculator(_load(folder).to(device).eval(), stress_unit="eV/A3", use_voigt=True)


def _load(folder: Path) -> Any:
    from matgl.apps.pes import Potential

    # of an older version it only warns, and the energies are wrong
    warnings.filterwarnings("error", "Incompatible model version", UserWarning)
    try:
        potential = Potential.load({name: folder / name for name in FILES})
    except UserWarning as error:
        message = (
            f"{folder} was written by an older matgl, and its weights give wrong energies in this "
            "one: get newer ones, or train again"
        )
        raise UserError(message) from error
    mend_repulsion(potential)
    return potential


def mend_repulsion(potential: Any) -> None:
    """Make the ZBL repulsion of a `Potential` work, if it has one.

    That of matgl 4.1.2 reads distances from the graph that its models do not leave there, needs an
    edge at the last atom, and makes a tensor on the CPU wherever the others are.
    """
    import torch
    from matgl.graph._compute import compute_pair_vector_and_distance

    if not potential.calc_repuls:
        return
    of_matgl, cutoff = potential.repuls.forward, potential.repuls.r_cut

    def forward(element_types: tuple[str, ...], graph: Any) -> Any:
        edges = graph.edge_index
        _, distances = compute_pair_vector_and_distance(graph.pos, edges, graph.pbc_offshift)
        last = edges.new_full((2, 1), len(graph.pos) - 1)
        seen = copy.copy(graph)  # with an edge of the cutoff's length, whose repulsion is 0
        seen.edge_index = torch.cat([edges, last], dim=1)
        seen.bond_dist = torch.cat([distances, distances.new_tensor([cutoff])])
        with torch.device(graph.pos.device):
            return of_matgl(element_types, seen)

    potential.repuls.forward = forward


def in_models(module: str) -> bool:
    """Tell whether matgl looks for a class of this module among those of its models."""
    from matgl.utils.io import _resolve_module

    return bool(_resolve_module(module) == "matgl.models")


def refuse_foreign(
    folder: Path,
    of_models: Callable[[str], bool] = in_models,
    library: str = "matgl",
) -> None:
    """Refuse files that name anything but a model, before the library imports and calls it.

    A name is compared wherever it stands in the file. `matgl.graph.data:MGLDataset`, for one, is
    matgl's own and reads pickles.

    Args:
        folder: The folder of the files.
        of_models: `in_models` of the version of the library that will read them.
        library: `matgl`, or `diep`, which saves its models alike.

    Raises:
        UserError: They name something else.
    """
    import torch

    def named(value: Any) -> Iterator[tuple[Any, Any]]:
        if isinstance(value, dict):
            if "@module" in value or "@class" in value:
                yield value.get("@module"), value.get("@class")
            value = list(value.values())
        if isinstance(value, (list, tuple, set, frozenset)):
            for each in value:
                yield from named(each)

    saved = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
    for module, name in named(saved):
        known = isinstance(module, str) and of_models(module)
        if not (known and name in MODELS[library]):
            shown = repr(f"{module}, {name}")[1:-1]
            raise UserError(
                f"{folder}: it names code of {shown:.120}, which is no model of {library} and "
                f"would be run: {TRUST}"
            )


def weights(model: str, *, offline: bool = False) -> Path:
    """Return the folder of the model's files, without importing torch.

    Args:
        model: As for `MatGL`.
        offline: Never download.

    Raises:
        UserError: If it is not there: what to get, and where to put it. Or a file breaks off.
    """
    if model in PUBLISHED:
        return whole_model(_published(model, offline=offline))
    folder = whole_model(Path(model))
    if old := of_older_matgl(folder):
        raise UserError(
            f"{folder} has the weights of {old.label}, which this matgl loads and gets wrong "
            f"energies from: make env-matgl2, and --models {old.name} or LABEL=matgl2:{folder}"
        )
    return folder


def of_older_matgl(folder: Path) -> PublishedWeights | None:
    """Recognise published weights that need matgl 2, by the sha256 of `state.pt`."""
    digest = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
    return next((old for old in published_by("matgl2").values() if old.sha256 == digest), None)


def check_own_energy(potential: Any, folder: Path, library: str = "matgl") -> None:
    """Hold a model of the user's own to an energy of NaCl, where it knows Na and Cl.

    An M3GNet that an older matgl wrote loads without a word, and its energies of compounds are
    wrong. What is expected is, in this order: whatever it gives, if the card beside it says that
    `baselines.train` made it with this matgl; the energy that `model.json` states under
    `metadata`, as `Potential.save(folder, metadata={"nacl_energy": -1.23})` writes it; PBE's or
    r2SCAN's.

    Args:
        potential: The ASE calculator.
        folder: The folder of its files.
        library: `matgl` or `diep`.

    Raises:
        UserError: The energy is another one.
    """
    version = importlib.metadata.version(library)

    def read(path: Path, *keys: str) -> Any:
        try:
            value = json.loads(path.read_text())
            for key in keys:
                value = value[key]
        except READ_ERRORS:
            return None
        return value

    made_by = read(folder.with_suffix(".json"), "packages", library)
    if str(made_by).split(".")[0] == version.split(".")[0]:
        return
    if not {"Na", "Cl"} <= set(potential.element_types):
        return
    stated = read(folder / "model.json", "metadata", "nacl_energy")
    if isinstance(stated, (int, float)):
        check_reference_energy(potential, measured(stated, 0.01), str(folder))
        return
    energy = nacl_energy(potential, str(folder))
    if not any(allowed.low <= energy <= allowed.high for allowed in (PBE, R2SCAN)):
        raise UserError(
            f"{folder} gives NaCl {energy:.4f} eV/atom, neither PBE's ({PBE.low} … {PBE.high}) nor "
            f"r2SCAN's ({R2SCAN.low} … {R2SCAN.high}): weights for another version of {library} "
            f"than {version}? If they have another zero, state the energy that they gave "
            'where they were trained in model.json, as "metadata": {"nacl_energy": …}'
        )


def whole_model(folder: Path, library: str = "matgl") -> Path:
    """Return the folder if it has all files of a saved model, none of which breaks off.

    Args:
        folder: The folder of the files.
        library: `matgl` or `diep`, for the message.

    Raises:
        UserError: A file is missing, or its end is.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        message = f"{folder} is no saved model of {library}: {', '.join(missing)} not there"
        raise UserError(message)
    for name in ("model.pt", "state.pt"):
        intact(folder / name)
    return folder


def _published(model: str, *, offline: bool) -> Path:
    from huggingface_hub import constants, try_to_load_from_cache

    if folder := local_weights(model, PUBLISHED[model].file):
        return folder
    repo, cache = f"{OWNER}/{PUBLISHED[model].file}", _cache()
    found = [try_to_load_from_cache(repo, name, cache_dir=cache) for name in FILES]
    if all(isinstance(path, str) for path in found):
        return Path(str(found[0])).parent
    if offline or constants.is_offline_mode():
        reason = "not downloading (offline)"
    else:
        fetched = _download(repo, cache)
        if isinstance(fetched, Path):
            return fetched
        reason = fetched
    message = (
        f"the weights of {model} are not there, {reason}: where there is a network, "
        f"`hf download {repo} --cache-dir {cache}`, and copy that folder here"
    )
    raise UserError(message)


def _download(repo: str, cache: Path) -> Path | str:
    """Fetch a model into matgl's cache; return the folder, or the reason of a failure."""
    from httpx2 import HTTPError
    from huggingface_hub import hf_hub_download

    try:
        paths = [hf_hub_download(repo, name, cache_dir=cache) for name in FILES]
    except (HTTPError, OSError, ValueError) as error:
        first = (str(error).strip() or "no answer").splitlines()[0]
        return f"cannot be downloaded ({type(error).__name__}: {first})"
    return Path(paths[0]).parent


def _cache() -> Path:
    """Return matgl's cache folder, which no environment variable changes."""
    return Path.home() / ".cache" / "matgl"
