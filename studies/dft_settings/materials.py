"""Materials that were relaxed several times, and the distances of the relaxed structures.

Two relaxations are of one material if they share the material id, or the reduced composition and
the prototype (`benchmarks.data.splits.prototypes`: anonymous formula, space group, Wyckoff letters
of the relaxed structure). Their cells may be of different size and setting, their sites in another
order: the smaller structure is repeated and put into the setting of the larger one, whose lattice
and site order then count as those of a reference, and the metrics' own functions are applied. Where
that fails, the volume per site is compared if the id is the same; a prototype alone (in space group
1 one for all) does then not make one material.

The functional is a column of the data; program, +U and cutoff stand in the `FILE.settings.csv` that
`python -m benchmarks.data convert` writes beside its table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.core import Geometry, UserError
from benchmarks.core.geometry import cell_parameters, displacements, reduced_composition, strain
from benchmarks.data.convert.convert import settings_path
from benchmarks.data.folders import made_of

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.data import Dataset


UNKNOWN: Final = "unknown"
SETTINGS: Final[Mapping[str, str]] = {
    "functional": "Functional",
    "program": "Program",
    "hubbard_u": "+U",
    "cutoff": "Cutoff (eV)",
}
"""Column -> title."""


def settings_of(dataset: Dataset, sources: Iterable[str]) -> pd.DataFrame:
    """The settings of each sample, as text.

    Args:
        dataset: The samples.
        sources: What it was loaded from; settings are looked for beside each file and in each
            folder, those included that a held-out split was made of.

    Returns:
        (n_samples, `SETTINGS`), index sample_id, `UNKNOWN` where nothing is known.

    Raises:
        UserError: A file of settings is damaged.
    """
    import pandas as pd

    stated = pd.concat([_empty(), *map(_read, _files(sources))])
    stated = stated[~stated.index.duplicated()].reindex(dataset.ids)
    functionals = pd.Series(dataset.functionals, index=stated.index, dtype=object)
    table = stated.assign(functional=functionals)[list(SETTINGS)]
    return table.astype(object).fillna(UNKNOWN).replace("", UNKNOWN)


def _empty() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=["program", "hubbard_u", "cutoff"], dtype=object)


def _files(sources: Iterable[str]) -> Iterator[Path]:
    for source in (Path(inner) for each in sources for inner in made_of(each)):
        beside = settings_path(source) if source.suffix else source
        yield from [beside] if beside.is_file() else sorted(source.glob("*.settings.csv"))


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        found = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("sample_id")
        return pd.DataFrame(
            {
                "program": found["program"],
                "hubbard_u": [_hubbard_u(text) for text in found["hubbard_u_ev"]],
                "cutoff": [f"{float(text):g}" if text else "" for text in found["cutoff_ev"]],
            }
        )
    except (KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): convert again") from error


def _hubbard_u(text: str) -> str:
    """A file that states no U may have none, or not tell."""
    return "+U" if any(json.loads(text or "{}").values()) else "none stated"


TOLERANCES: Final = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
"""Relative, of the lengths after scaling to one volume, tried in this order: the first that finds
a common cell does not confuse axes of nearly equal length, which the distances of sites alone do
not tell apart."""
DEGREES: Final = 60.0
"""Tolerance of the angles per tolerance of the lengths [°], about one radian."""


def describe(dataset: Dataset) -> pd.DataFrame:
    """Find the samples of one material.

    Returns:
        A row for each sample, index sample_id: position in `dataset`, material_id, composition
        (reduced), prototype (None where there is no consistent space group), material (number).
    """
    import pandas as pd

    from benchmarks.data.splits.grouping import joined
    from benchmarks.data.splits.prototypes import prototype

    finals = [dataset.geometries(i)[1] for i in range(len(dataset))]
    compositions = [reduced_composition(final.numbers.tolist()) for final in finals]
    prototypes = [prototype(final) for final in finals]
    kinds = [p and f"{c} {p}" for c, p in zip(compositions, prototypes, strict=True)]
    return pd.DataFrame(
        {
            "position": np.arange(len(dataset)),
            "material_id": dataset.materials,
            "composition": compositions,
            "prototype": prototypes,
            "material": joined([dataset.materials, kinds]),
        },
        index=pd.Index(dataset.ids, name="sample_id"),
    )


def pairs(dataset: Dataset, samples: pd.DataFrame) -> pd.DataFrame:
    """Every two relaxations of one material, and how far they are apart.

    Args:
        dataset: The samples.
        samples: `describe` of them with a column functional; unknown ones are left out.

    Returns:
        A row for each pair: material, composition, functionals (`pbe, pbesol`), first and second
        (sample ids), shared (`material id` or `prototype`) and the columns of `difference`.
    """
    import pandas as pd
    from tqdm import tqdm

    known = samples[samples["functional"] != UNKNOWN]
    found = [two for _, group in known.groupby("material") for two in _partners(group)]
    rows = []
    for first, second in tqdm(found, "pairs", disable=None, leave=False):
        finals = (dataset.geometries(each["position"])[1] for each in (first, second))
        row = difference(*finals)
        shared = "material id" if first["material_id"] == second["material_id"] else "prototype"
        if row["left_out"] and shared == "prototype":
            row["volume_mape"] = np.nan
        rows.append(
            {
                "material": first["material"],
                "composition": first["composition"],
                "functionals": f"{first['functional']}, {second['functional']}",
                "first": first.name,
                "second": second.name,
                "shared": shared,
                **row,
            }
        )
    return pd.DataFrame(rows, columns=[*_ABOUT, *DIFFERENCES, "left_out"])


DIFFERENCES: Final = ("lattice_mae", "volume_mape", "strain", "position_mae")
"""The values of `METRICS`, in Å, %, 1 and Å."""
_ABOUT: Final = ("material", "composition", "functionals", "first", "second", "shared")


def _partners(group: pd.DataFrame) -> Iterator[tuple[pd.Series, pd.Series]]:
    """Pairs that share the id or the prototype themselves and not by a chain."""
    ordered = group.sort_values(["functional", "sample_id"])
    for (_, first), (_, second) in combinations(ordered.iterrows(), 2):
        same = first["prototype"] is not None and first["prototype"] == second["prototype"]
        if same or first["material_id"] == second["material_id"]:
            yield first, second


def difference(first: Geometry, second: Geometry) -> dict[str, float | str]:
    """The distances of two relaxed structures of one composition.

    Returns:
        `DIFFERENCES` (the volume in % of the first, the others nan where there is no common cell)
        and left_out: why there is none, or empty.
    """
    large, small = sorted((first, second), key=lambda each: len(each.numbers), reverse=True)
    row: dict[str, float | str] = dict.fromkeys(DIFFERENCES, np.nan)
    row["volume_mape"] = 100 * abs(_volume_per_site(second) / _volume_per_site(first) - 1)
    if len(large.numbers) % len(small.numbers):
        return row | {"left_out": "one cell is no multiple of the other"}
    mapped = in_setting_of(large, small)
    if mapped is None:
        return row | {"left_out": "no common cell"}
    lengths = cell_parameters(mapped.lattice)[:3] - cell_parameters(large.lattice)[:3]
    return row | {
        "lattice_mae": float(np.abs(lengths).mean()),
        "strain": strain(large.lattice, mapped.lattice),
        "position_mae": float(np.linalg.norm(displacements(large, mapped), axis=1).mean()),
        "left_out": "",
    }


def in_setting_of(reference: Geometry, other: Geometry) -> Geometry | None:
    """`other` repeated and with its sites ordered so that it is like `reference`.

    Distances between its sites are not changed. None where no cell is within `TOLERANCES` or no
    site assignment is within pymatgen's default of 0.3 (V/n)^(1/3).

    Args:
        reference: A structure.
        other: The same reduced composition, with as many sites or a divisor of it.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    structures = reference.structure(), other.structure()
    for tolerance in TOLERANCES:
        matcher = StructureMatcher(
            ltol=tolerance, angle_tol=DEGREES * tolerance, primitive_cell=False,
            attempt_supercell=True,
        )  # fmt: skip
        found = matcher.get_s2_like_s1(*structures)
        if found is not None:
            return Geometry.of(found)
    return None


def _volume_per_site(geometry: Geometry) -> float:
    return float(abs(np.linalg.det(geometry.lattice)) / len(geometry.numbers))
