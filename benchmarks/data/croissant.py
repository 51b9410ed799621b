"""Croissant metadata of the data sets of this project, with the fields of responsible AI.

    python -m benchmarks.data metadata           # writes croissant.json into the folder of each
    python -m benchmarks.data metadata --check

The text is JSON-LD by version 1.1 of Croissant (https://docs.mlcommons.org/croissant) and version
1.0 of its vocabulary of responsible AI. It is made of the manifest, the card and the columns of the
files, and names each file by its sha256. `mlcroissant`, in the extra `croissant`, validates it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.core import UserError
from benchmarks.core.files import atomic_write, file_sha256
from benchmarks.data.folders import EMBEDDED_SETS, MANIFEST, embedded_folder, read_manifest

FILE: Final = "croissant.json"
CARD: Final = "README.md"
LICENCE: Final = "CC-BY-4.0"
LICENCE_URL: Final = "https://creativecommons.org/licenses/by/4.0/"
CREATOR: Final = "The t2relax-bench authors"
CONTEXT: Final = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that version 1.1 asks for."""
COLUMNS: Final = {
    "elements": "Symbols of the elements, in alphabetical order.",
    "nsites": "Number of sites of the cell.",
    "lattice_vectors": "Rows are the lattice vectors [Å].",
    "cartesian_site_positions": "Cartesian coordinates of the sites [Å].",
    "species_at_sites": "Element of each site.",
    "stress_tensor": "Stress [kB] with the sign of VASP, which is minus that of ASE.",
    "energy": "Free energy of the cell [eV], with the zero of the program's setups.",
    "forces": "Forces on the sites [eV/Å].",
    "functional": "The functional of the calculation.",
    "immutable_id": "The material.",
    "id": "Material, trajectory, functional and step.",
    "relaxation_step": "The ionic step, counted from 0.",
    "relaxation_number": "The calculation within the trajectory.",
}
"""What a reader needs to know of a column; the others are those of LeMat-Traj."""
COLLECTED: Final = {
    "embedded": "Computed by density functional theory for this project; the card has program, "
    "settings, the origin of the initial structures, and what did not converge.",
    "perturbed": "Made from final structures of the embedded sets by strains and displacements of "
    "given sizes in random directions; no further calculation. The card has the sizes.",
}
"""The origin of a set, by the first word of its name."""
RESPONSIBLE: Final = {
    "rai:dataCollectionType": ["Software Collection"],
    "rai:dataUseCases": "Testing, and training, of models that predict how a crystal relaxes: the "
    "first frame of a trajectory is the input, its last frame the reference. Not meant for the "
    "choice of materials for use.",
    "rai:dataLimitations": "Calculations of ideal, small, ordered crystals at 0 K with one "
    "functional, not spin-polarised; no defects, surfaces, temperature or experiment. The card has "
    "the numerical errors of the references.",
    "rai:dataBiases": "Prototype structures of common elements, most of them highly symmetric; "
    "magnetic crystals, disordered ones and those that did not converge are left out.",
    "rai:dataSocialImpact": "None is known beyond that of research on materials.",
    "rai:personalSensitiveInformation": "None: the data are about crystals alone.",
    "rai:dataReleaseMaintenancePlan": "The samples of a version never change; others are a new "
    "version, but for version 3 of the embedded set, to which relaxations are added. The manifest "
    "has the sha256 of each file.",
}
"""The fields of responsible AI that all sets share."""


def metadata(folder: Path, date: str) -> dict[str, Any]:
    """The metadata of a data set as JSON-LD.

    Args:
        folder: Has the files, `manifest.json` and the card `README.md`.
        date: The day of publication, as 2026-11-30.

    Raises:
        UserError: A file is missing or is not the one that the manifest lists.
    """
    manifest = read_manifest(folder)
    try:
        card = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / CARD}: cannot be read ({type(error).__name__})") from error
    name = f"{manifest['name']}-v{manifest['version']}"
    first = re.search(r"^# .*\n\n((?:.+\n)+)", card, re.MULTILINE)
    if first is None or manifest["name"] not in COLLECTED:
        raise UserError(f"{folder}: its card has no first paragraph, or its origin is not known")
    files, records = [], []
    for split, entry in manifest["splits"].items():
        path = folder / entry["file"]
        if not path.is_file() or file_sha256(path) != entry["sha256"]:
            raise UserError(f"{path}: missing, or not the file of {folder / MANIFEST}")
        files.append(
            {
                "@type": "cr:FileObject",
                "@id": entry["file"],
                "name": entry["file"],
                "description": f"The {split} split, {entry['n_samples']} relaxations.",
                "contentUrl": entry["file"],
                "contentSize": f"{path.stat().st_size} B",
                "encodingFormat": "application/x-parquet",
                "sha256": entry["sha256"],
            }
        )
        records.append(
            {
                "@type": "cr:RecordSet",
                "@id": split,
                "name": split,
                "description": "One record for each ionic step; `id` without the step is a sample.",
                "field": [_field(split, entry["file"], column) for column in pq.read_schema(path)],
            }
        )
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.1",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": name,
        "description": " ".join(first[1].split()),
        "version": f"{manifest['version']}.0.0",
        "license": LICENCE_URL,
        "datePublished": date,
        "creator": {"@type": "sc:Organization", "name": CREATOR},
        "citeAs": f"{CREATOR}: t2relax-bench, data set {name}.",
        "keywords": ["crystal structure relaxation", "density functional theory", "benchmark"],
        "isLiveDataset": False,
        "rai:dataCollection": COLLECTED[manifest["name"]],
        **RESPONSIBLE,
        "distribution": files,
        "recordSet": records,
    }


def _field(split: str, file: str, column: pa.Field) -> dict[str, Any]:
    """One column of a file; nested lists are arrays whose lengths differ between records."""
    kind, depth = column.type, 0
    while pa.types.is_list(kind):
        kind, depth = kind.value_type, depth + 1
    name = next(
        name
        for name, holds in (
            ("sc:Boolean", pa.types.is_boolean),
            ("sc:Integer", pa.types.is_integer),
            ("sc:Float", pa.types.is_floating),
            ("sc:Text", lambda _: True),
        )
        if holds(kind)
    )
    field = {
        "@type": "cr:Field",
        "@id": f"{split}/{column.name}",
        "name": column.name,
        "description": COLUMNS.get(column.name, "As in LeMat-Traj."),
        "dataType": name,
        "source": {"fileObject": {"@id": file}, "extract": {"column": column.name}},
    }
    if depth:
        field |= {"isArray": True, "arrayShape": ",".join(["-1"] * depth)}
    return field


def metadata_text(folder: Path, date: str | None = None) -> str:
    """`metadata` as the text of `croissant.json`.

    Args:
        folder: The folder of the data set.
        date: The day of publication; None keeps that of the file that is there, or is today.

    Raises:
        UserError: As of `metadata`, or the file that is there is damaged.
    """
    path = folder / FILE
    if date is None and path.is_file():
        try:
            date = str(json.loads(path.read_text(encoding="utf-8"))["datePublished"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged ({type(error).__name__}): remove it") from error
    found = metadata(folder, date or dt.datetime.now(tz=dt.UTC).date().isoformat())
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data metadata",
        description="Write the Croissant metadata of the data sets of this project.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("sets", nargs="*", metavar="SET", help=f"default: {', '.join(EMBEDDED_SETS)}")
    add("--date", type=_day, metavar="YYYY-MM-DD", help="of publication; default: kept, or today")
    add("--check", action="store_true", help="compare only; 1 if one differs")
    args = parser.parse_args(argv)
    folders = own_folders(args.sets)
    status = 0
    for folder in folders:
        path, text = folder / FILE, metadata_text(folder, args.date)
        same = path.is_file() and path.read_text(encoding="utf-8") == text
        if args.check:
            sys.stdout.write(f"{path}: {'agrees' if same else 'differs'}\n")
            status = status if same else 1
        else:
            with atomic_write(path) as partial:
                partial.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {path}\n")
    return status


def own_folders(names: Sequence[str]) -> list[Path]:
    """The folders of data sets of this project; all if none is named.

    Raises:
        UserError: There is no such set.
    """
    if unknown := [name for name in names if name not in EMBEDDED_SETS]:
        raise UserError(f"{unknown[0]}: no data set of this project: {', '.join(EMBEDDED_SETS)}")
    return [embedded_folder(name) for name in names or EMBEDDED_SETS]


def _day(text: str) -> str:
    """A type for argparse: a day."""
    try:
        return dt.date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day as 2026-11-30") from error
