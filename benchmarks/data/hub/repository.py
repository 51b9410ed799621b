"""A data set of the Hugging Face Hub at one commit: the list of its files, and requests for them.

    --data hf://LeMaterial/LeMat-Traj[@REVISION][:CONFIG]

The revision is resolved to a commit once; everything after that names the commit, which is the
data set's revision in a run. huggingface_hub makes the requests, waits and repeats (429, 5xx,
timeouts, bodies cut off) and reads its own variables: HF_ENDPOINT, HF_HOME, HF_TOKEN,
HF_HUB_DOWNLOAD_TIMEOUT. This module checks the answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.core import UserError
from benchmarks.core.files import atomic_write

DEFAULT_CONFIG = "compatible_pbe"
SPLIT = "train"
"""The only split that LeMat-Traj has on the Hub."""
_ADDRESS = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^:@]+))?(:(?P<config>[\w.-]+))?"
)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file in the listing of its commit."""

    path: str
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, slots=True)
class ResolvedRevision:
    """The files of one configuration at one commit."""

    repo: str
    commit: str
    config: str
    files: tuple[HubFile, ...]
    """Sorted by path, which is the order of the rows."""
    offline: bool = False
    """True if only the cache is used."""

    @property
    def name(self) -> str:
        """`LeMaterial/LeMat-Traj/compatible_pbe`."""
        return f"{self.repo}/{self.config}"

    @property
    def folder(self) -> Path:
        """The folder of the cache for this commit."""
        return _cache(self.repo) / self.commit


def resolve_revision(address: str, *, offline: bool = False) -> ResolvedRevision:
    """Resolve `hf://OWNER/NAME[@REVISION][:CONFIG]` to a commit and list its parquet files.

    Args:
        address: Without a revision the branch `main`, without a configuration `DEFAULT_CONFIG`.
        offline: Use the answer that an earlier call kept.

    Raises:
        UserError: The address is malformed, the server cannot be reached or does not know the
            revision or the configuration, or (offline) nothing was kept.
    """
    from huggingface_hub import constants

    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(f"{address}: write it as hf://OWNER/NAME[@REVISION][:CONFIG]")
    repo, revision = match["repo"], match["revision"] or "main"
    config = match["config"] or DEFAULT_CONFIG
    if offline or constants.is_offline_mode():
        return _kept(address, repo, revision, config)
    with reaching(address):
        url = f"{constants.ENDPOINT}/api/datasets/{repo}/revision/{quote(revision, safe='')}"
        commit = str(request(url, constants.HF_HUB_ETAG_TIMEOUT).json()["sha"])
        found = ResolvedRevision(repo, commit, config, _listing(repo, commit, config))
    content = {"commit": found.commit, "files": [asdict(file) for file in found.files]}
    for name in {revision, commit}:
        write_cached(_pin_path(repo, name, config), json.dumps(content, indent=1).encode())
    return found


@contextmanager
def reaching(what: str) -> Iterator[None]:
    """Turn every error between here and the server into one line that names `what`."""
    from httpx2 import HTTPError
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except RevisionNotFoundError as error:
        raise UserError(f"{what}: {constants.ENDPOINT} has no such revision") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{what}: {constants.ENDPOINT} has no such data set, or it needs HF_TOKEN"
        ) from error
    except (HTTPError, OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
        raise UserError(
            f"{what}: {type(error).__name__} from {constants.ENDPOINT}: {first}"
        ) from error


def request(url: str, timeout: float, headers: dict[str, str] | None = None) -> Any:
    """The answer to a GET with the user's token, repeated as huggingface_hub repeats requests.

    Raises:
        httpx2.HTTPError: The last repetition failed too, or the server refused.
    """
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, not in __all__
        build_hf_headers,
        hf_raise_for_status,
        http_backoff,
    )

    headers = build_hf_headers() | (headers or {})
    response = http_backoff("GET", url, headers=headers, timeout=timeout)
    hf_raise_for_status(response)
    return response


def write_cached(path: Path, content: bytes) -> None:
    """Write a file of the cache whole, or not at all.

    Raises:
        UserError: There is no room, or no permission.
    """
    try:
        with atomic_write(path) as partial:
            partial.write_bytes(content)
    except UserError as error:
        raise UserError(f"{error}; HF_HOME names another place for it") from error


def _listing(repo: str, commit: str, config: str) -> tuple[HubFile, ...]:
    """The parquet files of the split; they are stored as large files, which have a sha256."""
    from huggingface_hub import HfApi, RepoFile, constants

    tree = HfApi(endpoint=constants.ENDPOINT).list_repo_tree(
        repo, recursive=True, revision=commit, repo_type="dataset"
    )
    found = [x for x in tree if isinstance(x, RepoFile) and x.path.endswith(".parquet")]
    ours = re.compile(rf"{re.escape(config)}/{SPLIT}(?![a-z])")
    files = [HubFile(x.path, x.size, x.lfs.sha256) for x in found if x.lfs and ours.match(x.path)]
    if not files:
        known = sorted({x.path.split("/")[0] for x in found if "/" in x.path})
        raise UserError(
            f"{repo} has no configuration {config} with {SPLIT}*.parquet at {commit}: "
            f"it has {', '.join(known) or 'no parquet'}"
        )
    return tuple(sorted(files, key=lambda file: file.path))


def _cache(repo: str) -> Path:
    from huggingface_hub import cached_assets_path, constants

    with reaching(repo):
        return cached_assets_path("t2relax-bench", repo, assets_dir=constants.HF_ASSETS_CACHE)


def _pin_path(repo: str, revision: str, config: str) -> Path:
    return _cache(repo) / "pins" / quote(revision, safe="") / f"{config}.json"


def _kept(address: str, repo: str, revision: str, config: str) -> ResolvedRevision:
    path = _pin_path(repo, revision, config)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{address}: offline, and its listing is not in the cache ({path}): "
            "run once without --offline"
        ) from error
    files = tuple(HubFile(**file) for file in content["files"])
    return ResolvedRevision(repo, content["commit"], config, files, offline=True)
