"""M3GNet and TensorNet of matgl: the published models (MatPES, arXiv:2503.04070), or your own.

The published weights live on the Hugging Face Hub and come into matgl's own cache
(`~/.cache/matgl`). matgl reads its files without running code from them (`weights_only`), but
calls whatever name of whatever module they give, with their arguments: files that name anything but
a model of matgl are refused unless they are trusted.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from baselines.engines.ase_engine import AseRelaxer
from baselines.potentials.loading import (
    TRUST,
    check_reference_energy,
    intact,
    loading,
    reference_energy,
)
from benchmarks.core import RelaxSettings, UserError
from benchmarks.core.published_weights import published_by

FILES = ("model.pt", "state.pt", "model.json")
"""The files of a saved model of matgl."""
MODELS = ("CHGNet", "M3GNet", "MEGNet", "QET", "SO3Net", "TensorNet")
"""The classes of `matgl.models` that a file may name: they compute and do nothing else."""
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
            that is no model of matgl without `trust`, were written by an older matgl, or are
            published ones that give another energy than they should.
    """

    def __init__(
        self,
        model: str,
        *,
        trust: bool = False,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        from pymatgen.core import Element

        potential = calculator(
            weights(model, offline=settings.offline), settings.device, trust=trust
        )
        if model in PUBLISHED:
            check_reference_energy(potential, reference_energy(PUBLISHED[model]), model)
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


def refuse_foreign(folder: Path) -> None:
    """Refuse files that name anything but a model of matgl, before matgl imports and calls it.

    A name is compared after matgl's own resolution of modules, wherever it stands in the file.
    `matgl.graph.data:MGLDataset`, for one, is matgl's own and reads pickles.

    Raises:
        UserError: They name something else.
    """
    import torch
    from matgl.utils.io import _resolve_module

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
        known = isinstance(module, str) and _resolve_module(module) == "matgl.models"
        if not (known and name in MODELS):
            shown = repr(f"{module}, {name}")[1:-1]
            raise UserError(
                f"{folder}: it names code of {shown:.120}, which is no model of matgl and would be "
                f"run: {TRUST}"
            )


def weights(model: str, *, offline: bool = False) -> Path:
    """Return the folder of the model's files, without importing torch.

    Args:
        model: As for `MatGL`.
        offline: Never download.

    Raises:
        UserError: If it is not there: what to get, and where to put it. Or a file breaks off.
    """
    folder = _published(model, offline=offline) if model in PUBLISHED else Path(model)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        message = f"{folder} is no saved model of matgl: {', '.join(missing)} not there"
        raise UserError(message)
    for name in ("model.pt", "state.pt"):
        intact(folder / name)
    return folder


def _published(model: str, *, offline: bool) -> Path:
    from huggingface_hub import constants, try_to_load_from_cache

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
