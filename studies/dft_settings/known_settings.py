"""The known settings of each relaxation: functional, program, +U, cutoff.

The functional is a column of the data; the others stand in the `FILE.settings.csv` that
`python -m benchmarks.data convert` writes beside its table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.core import UserError
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
