"""VASP's `vasprun.xml`: every ionic step, and the settings, with pymatgen.

The energy is the free energy (`e_fr_energy`), as in LeMat-Traj: the forces are its slope, and the
other two of a step are not written consistently by all versions of VASP.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from benchmarks.data.convert.conventions import (
    check_tags,
    constraint_of_tags,
    functional_of_tags,
    unfinished_of_tags,
    vasp_tags,
)
from benchmarks.data.convert.recognition import COMPRESSIONS, is_compressed, open_text
from benchmarks.data.convert.relaxation import (
    HYDROGEN,
    ConversionError,
    Relaxation,
    Step,
    largest_force,
    numbers,
)
from benchmarks.data.lemat.quarantine import Reason


def read(path: Path) -> Relaxation:
    """All complete ionic steps of a `vasprun.xml`, in order, compressed or not."""
    try:
        run, broken = _vasprun(path, strict=True), False
    except SyntaxError:
        run, broken = _vasprun(path, strict=False), True
    tags = vasp_tags(run.incar, run.parameters)
    check_tags(tags)
    functional, potcars = functional_of_tags(tags), run.potcar_symbols
    if functional is None and potcars and all(x.startswith("PAW_PBE ") for x in potcars):
        functional = "pbe"  # the titles are like `PAW_PBE Fe 06Sep2000`
    structures = [step["structure"] for step in run.ionic_steps if step["structure"]]
    selective = [s.site_properties.get("selective_dynamics") for s in structures]
    held = any(moves is not None and not all(map(all, moves)) for moves in selective)
    steps = [_step(step) for step in run.ionic_steps]
    if broken:
        unfinished = f"breaks off after {len(steps)} ionic steps"
    else:
        unfinished = _unfinished(run, tags, steps)
    return Relaxation(
        steps=steps,
        functional=functional,
        program="VASP",
        cutoff=tags.get("ENMAX") or tags.get("ENCUT"),
        hubbard_u=_hubbard_u(tags, potcars),
        constraint="some sites were held fixed" if held else constraint_of_tags(tags),
        unfinished=unfinished,
    )


def _vasprun(path: Path, *, strict: bool) -> Any:
    from pymatgen.core.structure import StructureError
    from pymatgen.io.vasp.outputs import Vasprun

    def parse(file: str | Path) -> Any:
        try:
            return Vasprun(
                file,
                parse_dos=False,
                parse_eigen=False,
                parse_potcar_file=False,
                exception_on_bad_xml=strict,
            )
        except StructureError as error:
            raise ConversionError("not readable as vasp: not a position for each atom") from error

    # pymatgen tells by the suffix alone whether a file is compressed, and reads UTF-8 only.
    if (path.suffix in COMPRESSIONS) == is_compressed(path):
        with suppress(UnicodeDecodeError):
            return parse(path)
    with NamedTemporaryFile("w", suffix=".xml", encoding="utf-8") as copy:
        with open_text(path) as file:
            copy.writelines(file)
        copy.flush()
        return parse(copy.name)


def _unfinished(run: Any, tags: Mapping[str, Any], steps: list[Step]) -> str:
    if not steps:
        return ""
    energies = [step.energy for step in steps]
    ions = unfinished_of_tags(tags, len(steps), largest_force(steps[-1]), energies)
    most, electronic = tags.get("NELM"), len(run.ionic_steps[-1]["electronic_steps"])
    if not ions and isinstance(most, int) and 1 < most <= electronic:
        return f"NELM = {most} electronic steps were reached in the last ionic step"
    return ions


def _step(step: Mapping[str, Any]) -> Step:
    structure = step["structure"]
    if structure is None:
        raise ConversionError(Reason.NO_LATTICE)
    energy = numbers(step.get("e_fr_energy"), ())
    symbols = [site.specie.symbol for site in structure]
    return Step(
        symbols=tuple(HYDROGEN.get(symbol, symbol) for symbol in symbols),
        lattice=structure.lattice.matrix,
        positions=structure.cart_coords,
        energy=None if energy is None else float(energy),
        forces=numbers(step.get("forces"), (len(structure), 3)),
        stress=numbers(step.get("stress"), (3, 3)),
    )


def _hubbard_u(tags: Mapping[str, Any], titles: list[str]) -> dict[str, float]:
    if not tags.get("LDAU"):
        return {}
    u = tags.get("LDAUU") or []
    j = tags.get("LDAUJ") or [0.0] * len(u)
    if not len(u) == len(j) == len(titles):
        raise ConversionError("+U: LDAUU and LDAUJ do not match the elements")
    symbols = [title.split()[1].split("_")[0] for title in titles]
    return {s: a - b for s, a, b in zip(symbols, u, j, strict=True) if a != b}
