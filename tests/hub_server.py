"""A server on this machine that speaks as much of the Hub's protocol as reading a data set needs.

Revisions, tree listing in pages, `resolve` that redirects to a store on another host (with commit,
size and sha256 in its headers), byte ranges; and faults, put into `faults` by the tests.
"""

import hashlib
import io
import json
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import LEMAT_SCHEMA
from tests.local_server import answering

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
REPO = "LeMaterial/LeMat-Traj"
_PAGE = 3


class Hub(ThreadingHTTPServer):
    """Files of one data set at one commit, which `main` names.

    Attributes:
        files: Path -> content.
        faults: (part, fault) in the order in which they befall: part `api`, `resolve` or `store`;
            fault a status (`429`, `503`, `404`), `slow`, `cut`, `short`, `whole`, `bits`, `hash`,
            `commit`.
        served: Bytes of file content sent.
        asked: Requests by part.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.faults = []
        self.served = 0
        self.asked = Counter()
        self.lock = threading.Lock()

    @property
    def size(self):
        return sum(map(len, self.files.values()))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, part):
        """The next fault of a part, which it uses up."""
        with self.lock:
            self.asked[part] += 1
            for i, (where, fault) in enumerate(self.faults):
                if where == part:
                    del self.faults[i]
                    return fault
        return None


@contextmanager
def serving(files):
    """A `Hub` with these files, answering until the end of the block."""
    with answering(Hub(files)) as hub:
        yield hub


@lru_cache
def _sha256(content):
    return hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        part = {"api": "api", "datasets": "resolve"}.get(path.split("/")[1], "store")
        fault = self.server.fault(part)
        if fault == "slow":
            time.sleep(2)
        if isinstance(fault, int):
            return self._refuse(fault, "RevisionNotFound" if fault == 404 else None)
        return {"api": self._api, "resolve": self._resolve, "store": self._store}[part](path, fault)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass

    def _api(self, path, _):
        if not path.startswith(f"/api/datasets/{REPO}/"):
            return self._refuse(404, "RepoNotFound")
        what, revision = path.removeprefix(f"/api/datasets/{REPO}/").split("/", 1)
        if revision not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        if what == "revision":
            return self._json({"id": REPO, "sha": COMMIT})
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        entries = [self._entry(*item) for item in sorted(self.server.files.items())]
        more = f"{self.server.url}{path}?recursive=True&cursor={start + _PAGE}"
        last = start + _PAGE >= len(entries)
        link = {} if last else {"Link": f'<{more}>; rel="next"'}
        return self._json(entries[start : start + _PAGE], link)

    def _entry(self, path, content):
        digest = _sha256(content)
        lfs = {"oid": digest, "size": len(content), "pointerSize": 130}
        return {"type": "file", "path": path, "size": len(content), "oid": "0" * 40, "lfs": lfs}

    def _resolve(self, path, fault):
        start = f"/datasets/{REPO}/resolve/{COMMIT}/"
        content = self.server.files.get(path.removeprefix(start))
        if content is None:
            return self._refuse(404, "EntryNotFound")
        digest = _sha256(b"?" if fault == "hash" else content)
        headers = {
            "Location": f"http://localhost:{self.server.server_port}/{path.removeprefix(start)}",
            "X-Repo-Commit": OTHER if fault == "commit" else COMMIT,
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{digest}"',
        }
        return self._send(302, b"", headers)

    def _store(self, path, fault):
        content = self.server.files[path[1:]]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or fault == "whole":
            return self._send(200, content, {}, fault)
        start, stop = int(wanted[1]), int(wanted[2] or len(content) - 1) + 1
        stop = min(stop, len(content)) - (fault == "short")
        place = f"bytes {start}-{stop - 1}/{len(content)}"
        return self._send(206, content[start:stop], {"Content-Range": place}, fault)

    def _refuse(self, status, code):
        headers = {"X-Error-Code": code} if code else {}
        self._send(status, b"", headers | ({"Retry-After": "0"} if status == 429 else {}))

    def _json(self, value, headers=()):
        self._send(200, json.dumps(value).encode(), dict(headers), counts=False)

    def _send(self, status, body, headers, fault=None, *, counts=True):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "bits":
            half = len(body) // 2
            body = body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :]
        if fault == "cut":
            body, self.close_connection = body[: len(body) // 2], True
        if counts:
            with self.server.lock:
                self.server.served += len(body)
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # who asked has lost patience


N_SITES = 8
LONG = 57
"""Frames of the longest trajectory: of every hundredth."""


def lemat_files(n_trajectories, n_files, rows_per_group, config="compatible_pbe", seed=0):
    """Path -> parquet: rows in the order of the ids' text; borders fall where they fall."""
    table = _table(n_trajectories, np.random.default_rng(seed))
    borders = np.linspace(0, len(table), n_files + 1).astype(int)
    return {
        f"{config}/train-{i:05d}-of-{n_files:05d}.parquet": _bytes(table[a:b], rows_per_group)
        for i, (a, b) in enumerate(pairwise(borders))
    }


def _bytes(table, rows_per_group):
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=rows_per_group, write_page_checksum=True)
    return sink.getvalue()


def _table(n, rng):
    lengths = rng.integers(2, 9, n)
    lengths[::100] = LONG
    materials = [f"agm{i:06d}" for i in range(n)]
    steps = np.concatenate([np.array(sorted(range(k), key=str)) for k in lengths])
    names = np.repeat(materials, lengths)
    rows = len(names)
    species = json.dumps([{"name": "Si", "chemical_symbols": ["Si"], "concentration": [1.0]}])
    columns = {
        "elements": [["Si"]] * rows,
        "nsites": [N_SITES] * rows,
        "chemical_formula_reduced": ["Si"] * rows,
        "nelements": [1] * rows,
        "dimension_types": [[1, 1, 1]] * rows,
        "nperiodic_dimensions": [3] * rows,
        "lattice_vectors": _vectors(_cells(rng, lengths)),
        "immutable_id": names,
        "cartesian_site_positions": _vectors(rng.uniform(0, 6, (rows, N_SITES, 3))),
        "species": [species] * rows,
        "species_at_sites": [["Si"] * N_SITES] * rows,
        "stress_tensor": _vectors(rng.normal(0, 1, (rows, 3, 3))),
        "energy": -5.0 * N_SITES - steps,
        "forces": _vectors(rng.normal(0, 0.1, (rows, N_SITES, 3))),
        "functional": ["pbe"] * rows,
        "cross_compatibility": [True] * rows,
        "id": [f"{name}-pbe-{step}" for name, step in zip(names, steps, strict=True)],
        "relaxation_step": steps,
        "relaxation_number": [0] * rows,
    }
    empty = pa.nulls(rows)
    return pa.table(
        [
            pa.array(columns[f.name]).cast(f.type) if f.name in columns else empty.cast(f.type)
            for f in LEMAT_SCHEMA
        ],
        schema=LEMAT_SCHEMA,
    )


def _cells(rng, lengths):
    sides = np.repeat(rng.uniform(5, 7, len(lengths)), lengths)
    return sides[:, None, None] * np.eye(3)


def _vectors(values):
    rows, n = values.shape[:2]
    inner = pa.ListArray.from_arrays(np.arange(0, rows * n * 3 + 1, 3, np.int32), values.ravel())
    return pa.ListArray.from_arrays(np.arange(0, rows * n + 1, n, np.int32), inner)
