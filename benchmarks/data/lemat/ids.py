"""Ids of frames, `{material}-{trajectory}-{functional}-{step}`, and the order of ids by hash."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.data.lemat.arrow import array, numpy

FRAME_ID = r"^(?P<key>.+)-(?P<step>[0-9]{1,9})$"
"""The key, which names the trajectory, and the step."""


def seeded_hash(seed: int, text: str) -> str:
    """The hash by which samples, files and row groups are sorted: sha256(seed + text)."""
    return hashlib.sha256(f"{seed}{text}".encode()).hexdigest()


def keys_of(ids: Any) -> Any:
    """The key in each id of an Arrow column; an id without a step is its own key."""
    ids = array(ids).cast(pa.string())
    return pc.coalesce(pc.struct_field(pc.extract_regex(ids, FRAME_ID), "key"), ids)


def source_of(material_id: str) -> str:
    """The prefix of a material id, its letters up to the first digit or `-` (`agm001` -> `agm`)."""
    match = re.match(r"[^\W\d_]+", material_id)
    return match[0] if match else "unknown"


def ids_agree(texts: dict[str, Any]) -> NDArray[np.bool_]:
    """Tell for each row whether its key is `{material}-{trajectory}-{functional}`.

    The trajectory's index stands in ids of the Materials Project only.

    Args:
        texts: `key`, `material`, `functional`, in this order: (n,) dictionary arrays.
    """
    values = {name: codes.dictionary.to_pylist() for name, codes in texts.items()}
    key, material, functional = (numpy(codes.indices).astype(np.int64) for codes in texts.values())
    m, f = len(values["material"]), len(values["functional"])
    distinct, of = np.unique((key * m + material) * f + functional, return_inverse=True)
    agree = []
    for i in distinct.tolist():
        text, named = values["key"][i // f // m], values["material"][i // f % m]
        by = values["functional"][i % f]
        if not named or not by:
            agree.append(False)
            continue
        index = text.removeprefix(f"{named}-").removesuffix(by).removesuffix("-")
        known = (f"{named}-{by}", f"{named}-{index}-{by}")
        agree.append(text in known and (index == "" or index.isdecimal()))
    return np.array(agree, dtype=bool)[of]
