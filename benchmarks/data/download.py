"""Whole files of the Hub: huggingface_hub fetches, resumes and keeps them; checked here."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.core import UserError
from benchmarks.data.hub import HubFile, Pin, reaching, write_cached
from benchmarks.data.sources import file_sha256

_WAITS = (1, 4, 16, 64)
"""Seconds before a file is asked for again: huggingface_hub itself repeats cut-off bodies only."""


def download(pin: Pin) -> tuple[Path, ...]:
    """Fetch all files of a pin, each held against the sha256 of the listing.

    A file that was checked is marked in our cache, so that it is hashed once.

    Raises:
        UserError: A file cannot be had or is not what the listing says.
    """
    return tuple(_whole(pin, file) for file in pin.files)


def _whole(pin: Pin, file: HubFile) -> Path:
    where = f"{pin.repo}/{file.path}"
    with reaching(where):
        path = _kept(pin, file) if pin.offline else _fetched(pin, file)
    checked = pin.folder / "whole" / file.sha256
    if not checked.is_file():
        if file_sha256(path) != file.sha256:
            path.resolve().unlink()
            raise UserError(f"{where}: its sha256 is not that of the listing")
        write_cached(checked, b"")
    return path


def _kept(pin: Pin, file: HubFile) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _hub_file(pin, file)
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{pin.repo}/{file.path}: offline, and not in the cache ({constants.HF_HUB_CACHE}): "
            "run once without --offline"
        ) from error


def _fetched(pin: Pin, file: HubFile) -> Path:
    from httpx2 import HTTPError
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

    for wait in _WAITS:
        try:
            return _hub_file(pin, file)
        except RevisionNotFoundError:
            raise
        except (HTTPError, LocalEntryNotFoundError):  # the latter when it did not get an answer
            time.sleep(wait)
    return _hub_file(pin, file)


def _hub_file(pin: Pin, file: HubFile) -> Path:
    from huggingface_hub import constants, hf_hub_download

    path = hf_hub_download(
        pin.repo,
        file.path,
        repo_type="dataset",
        revision=pin.commit,
        cache_dir=constants.HF_HUB_CACHE,
        endpoint=constants.ENDPOINT,
        local_files_only=pin.offline,
    )
    return Path(path)
