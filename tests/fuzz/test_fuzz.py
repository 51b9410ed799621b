"""Mutants of every kind of file that the program reads: an answer or one line, never a traceback.

`make fuzz` tries 2,000 of each kind; the suite tries a few, and those in `kept` that once failed. A
case may take 2 s of computing time and 1 GB of memory. A mutant that fails is written into
`tests/fuzz/failed`, from where it goes into `kept` with the mending.
"""

import json
import os
import resource
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.core import Geometry, Status, UserError
from benchmarks.data import load
from benchmarks.data.structures.read import read_structures
from benchmarks.store import read_runs
from leaderboard.board.scores import scores
from leaderboard.board.summary import board
from leaderboard.submission import read_submission, records_of, write_from_run
from leaderboard.views.markdown import markdown, table, to_csv
from t2relax.relaxer import TextRelaxer
from t2relax.text.codec import Crystal, delta_between, write_delta
from tests.fuzz.mutants import mutated_json, mutated_rows
from tests.test_convert_mutants import mutated
from tests.test_leaderboard import Memory, halfway, identity, write
from tests.test_tables import mutated_bytes, mutated_table, salt

CASES = int(os.environ.get("FUZZ_CASES", "12"))
SECONDS = 2.0
MEGABYTES = 1024
HERE = Path(__file__).parent
CIFS = sorted((HERE.parent / "cases").glob("*.cif"))


class Cif:
    """A mutant of a CIF among the cases."""

    def __init__(self, folder, **_):
        self.path = folder / "x.cif"

    def mutant(self, rng):
        data = CIFS[rng.integers(len(CIFS))].read_bytes()
        if rng.integers(3) == 0:
            return {"x.cif": mutated_bytes(data, rng)}
        return {"x.cif": mutated(data.decode("utf-8", "replace"), rng).encode("utf-8", "replace")}

    def read(self):
        found = read_structures(self.path)
        for each in found:
            assert (each.geometry is None) == bool(each.problem)
            assert "\n" not in (each.problem or "")
        if all(each.geometry is None for each in found):
            raise UserError(found[0].problem)


class Parquet:
    """A mutant of a table of trajectories, of its bytes or its columns."""

    def __init__(self, folder, lemat_table, lemat_frame, **_):
        self.path = folder / "x.parquet"
        frames = [
            lemat_frame(salt(5.6 + step / 10), f"mp-{i}", step, energy=-7.0 - step)
            for i in range(3)
            for step in range(3)
        ]
        self.table = lemat_table(frames)
        self.whole = _parquet(self.table, folder)

    def mutant(self, rng):
        if rng.integers(2):
            return {"x.parquet": mutated_bytes(self.whole, rng)}
        change = (mutated_table, mutated_rows)[rng.integers(2)]
        return {"x.parquet": _parquet(change(self.table, rng), self.path.parent)}

    def read(self):
        dataset = load(str(self.path))
        for i in range(len(dataset)):
            dataset.geometries(i)
            assert dataset[i].sample_id == dataset.ids[i]


class RunFolder:
    """A mutant of a header, a part or the stored scores of one of two runs, made into a board."""

    def __init__(self, folder, **_):
        self.dataset = Memory(4)
        self.folder = folder / "runs"
        for name, relax in (("identity", identity), ("halfway", halfway)):
            scores(read_runs([write(self.folder, name, relax, self.dataset)])[0], self.dataset)
        of_one = self.folder / "halfway"
        self.header, self.part, self.scores = (
            of_one / "shard-0000/run.json",
            of_one / "shard-0000/part-00000.parquet",
            of_one / "scores.parquet",
        )
        self.json = json.loads(self.header.read_text())
        self.tables = {path: pq.read_table(path) for path in (self.part, self.scores)}
        self.bytes = {path: path.read_bytes() for path in (self.header, self.part, self.scores)}

    def mutant(self, rng):
        changed = dict(self.bytes)
        match rng.integers(4):
            case 0 | 1:
                text = mutated_json(self.json, rng)
                changed[self.header] = text.encode("utf-8", "surrogatepass")
            case 2:
                path = (self.part, self.scores)[rng.integers(2)]
                made = mutated_rows(self.tables[path], rng)
                changed[path] = _parquet(made, self.folder, self.tables[path].schema.metadata)
            case 3:
                path = (self.part, self.scores)[rng.integers(2)]
                changed[path] = mutated_bytes(self.bytes[path], rng)
        root = self.folder.parent
        return {str(path.relative_to(root)): data for path, data in changed.items()}

    def read(self):
        for data in (self.dataset, None):
            runs = read_runs([self.folder])
            ours = [run for run in runs if run.identity["dataset"] == self.dataset.name]
            tables = [scores(run, data, store=False) for run in ours]
            made = board(ours, tables, replicates=5) if ours else None
            if made is not None:
                for text in (made.to_json(), markdown(made), table(made), to_csv(made)):
                    text.encode()


class Manifest:
    """A mutant of the manifest of a folder with splits, or of a held-out split of it."""

    def __init__(self, folder, lemat_table, lemat_frame, **_):
        from benchmarks.core.files import file_sha256
        from benchmarks.data.splits.manifest import make_manifest, split_of

        frames = [lemat_frame(salt(5.6 + step / 10), "mp-1", step) for step in range(2)]
        self.split = split_of(["Na", "Cl"])
        inner, outer = folder / "inner", folder / "outer"
        inner.mkdir()
        outer.mkdir()
        pq.write_table(lemat_table(frames), inner / f"{self.split}.parquet")
        (outer / "test.csv").write_text("sample_id\nmp-1-0-pbe\n")
        self.inner = make_manifest(inner, name="inner")
        (inner / "manifest.json").write_text(json.dumps(self.inner))
        whole = load(str(inner), split=self.split)
        self.outer = {
            "name": "outer", "version": 1, "rule": "x", "sources": [str(inner)], "n_drawn": None,
            "seed": 0, "revision": whole.revision, "source_split": self.split,
            "splits": {
                "test": {"file": "test.csv", "sha256": file_sha256(outer / "test.csv")},
            },
        }  # fmt: skip
        self.folder = folder

    def mutant(self, rng):
        inner, outer = json.dumps(self.inner), json.dumps(self.outer)
        match rng.integers(8):
            case 0:
                outer = outer.replace(str(self.folder / "inner"), str(self.folder / "outer"))
            case 1 | 2 | 3:
                inner = mutated_json(self.inner, rng)
            case _:
                outer = mutated_json(self.outer, rng)
        made = {"inner/manifest.json": inner, "outer/manifest.json": outer}
        return {name: text.encode("utf-8", "surrogatepass") for name, text in made.items()}

    def read(self):
        for name, split in (("inner", self.split), ("outer", "test")):
            dataset = load(str(self.folder / name), split=split)
            assert all(dataset[i].initial for i in range(len(dataset)))


class Card:
    """A mutant of the card or of the predictions of a submission."""

    def __init__(self, folder, **_):
        self.dataset = Memory(4)
        self.folder = folder / "submission"
        run = read_runs([write(folder / "runs", "halfway", halfway, self.dataset)])[0]
        write_from_run(run, self.folder, ["A"], "https://example.org")
        import yaml

        self.yaml = (self.folder / "card.yaml").read_text()
        self.card = yaml.safe_load(self.yaml)
        self.path = self.folder / "predictions.parquet"
        self.table, self.whole = pq.read_table(self.path), self.path.read_bytes()

    def mutant(self, rng):
        card, predictions = self.yaml.encode(), self.whole
        match rng.integers(5):
            case 0 | 1:
                card = mutated_json(self.card, rng).encode("utf-8", "surrogatepass")
            case 2:
                card = mutated(self.yaml, rng).encode()
            case 3:
                predictions = mutated_bytes(self.whole, rng)
            case 4:
                predictions = _parquet(mutated_rows(self.table, rng), self.folder)
        return {"submission/card.yaml": card, "submission/predictions.parquet": predictions}

    def read(self):
        records_of(read_submission(self.folder), self.dataset)


class ModelText:
    """A mutant of the text that a language model answers."""

    def __init__(self, folder, **_):
        self.path = folder / "answer.txt"
        dataset = Memory(2)
        self.initial, final = dataset.geometries(0)
        crystal = Crystal.of(self.initial)
        self.text = write_delta(delta_between(self.initial, final), crystal)
        self.relaxer = TextRelaxer.__new__(TextRelaxer)
        self.relaxer.mode, self.relaxer.symprec = "symmetric", 0.01
        self.relaxer.confidence = None

    def mutant(self, rng):
        match rng.integers(3):
            case 0:
                return {"answer.txt": mutated_bytes(self.text.encode(), rng)}
            case 1:
                return {"answer.txt": mutated(self.text, rng).encode("utf-8", "replace")}
        letters = list(self.text)  # the grammar stays, the numbers do not
        for at in rng.integers(len(letters), size=20):
            if letters[at] in "+-":
                letters[at] = "+-"[rng.integers(2)]
            elif letters[at].isdigit():
                letters[at] = str(rng.integers(10))
        return {"answer.txt": "".join(letters).encode()}

    def read(self):
        from t2relax.lm.base import Written

        text = self.path.read_bytes().decode("utf-8", "replace")
        for mode in ("free", "symmetric"):
            self.relaxer.mode = mode
            found = self.relaxer._outcome(self.initial, [Written(text, 1)])
            if found.status is Status.INVALID:
                raise UserError(found.detail.splitlines()[0])
            Geometry.of(found.structure)


def _parquet(made, folder, metadata=None):
    path = folder / "made.parquet"
    pq.write_table(made.replace_schema_metadata(metadata), path, row_group_size=4)
    data = path.read_bytes()
    path.unlink()
    return data


KINDS = {
    "cif": Cif,
    "parquet": Parquet,
    "run": RunFolder,
    "manifest": Manifest,
    "card": Card,
    "text": ModelText,
}


@pytest.fixture
def made(request, tmp_path, lemat_table, lemat_frame):
    kind = KINDS[request.param](tmp_path, lemat_table=lemat_table, lemat_frame=lemat_frame)
    with suppress(UserError):  # imports take their time
        write_files(kind.mutant(np.random.default_rng(0)), tmp_path)
        kind.read()
    return kind


def write_files(files, folder):
    for name, data in files.items():
        (folder / name).write_bytes(data)


def attempt(kind, files, folder):
    """Write the files of a mutant and read them; True if there was an answer."""
    write_files(files, folder)
    begin, held = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = ""
    try:
        kind.read()
    except UserError as error:
        said = str(error)
    assert "\n" not in said.replace("a\nb", ""), said
    seconds = time.process_time() - begin
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1024
    assert seconds < SECONDS, f"{seconds:.1f} s"
    assert grown < MEGABYTES, f"{grown:.0f} MB"
    return not said


@pytest.mark.parametrize("made", KINDS, indirect=True)
def test_mutants_that_once_failed_do_not(made, tmp_path, request):
    kept = HERE / "kept" / request.node.callspec.params["made"]
    for case in sorted(kept.iterdir()) if kept.is_dir() else []:
        found = {str(path.relative_to(case)): path for path in case.rglob("*") if path.is_file()}
        whole = made.mutant(np.random.default_rng(0))
        attempt(made, whole | {name: path.read_bytes() for name, path in found.items()}, tmp_path)


@pytest.mark.parametrize("made", KINDS, indirect=True)
def test_mutants_are_read_or_are_one_line(made, tmp_path, request):
    name = request.node.callspec.params["made"]
    answered = 0
    for seed in range(1, 1 + CASES):
        files = made.mutant(np.random.default_rng(seed))
        try:
            answered += attempt(made, files, tmp_path)
        except BaseException as error:
            failed = HERE / "failed" / name / str(seed)
            for file, data in files.items():
                (failed / file).parent.mkdir(parents=True, exist_ok=True)
                (failed / file).write_bytes(data)
            raise AssertionError(f"mutant {seed} of {name}, kept in {failed}") from error
    if CASES >= 100:
        assert 0.02 * CASES < answered < 0.98 * CASES
