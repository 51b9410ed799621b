"""Fetch a file by its address: resumed where it broke off, checked, and whole or not at all."""

from __future__ import annotations

from pathlib import Path

from benchmarks.core.files import file_sha256


def download(url: str, path: Path, *, offline: bool, sha256: str = "") -> str | None:
    """Fetch a file; return the reason if it cannot be had, or None.

    What came before a connection broke is kept beside `path` as `.NAME.part`, and the next call
    goes on from there. huggingface_hub repeats requests and shows the progress on stderr.

    Args:
        url: Its address, http or https.
        path: Where it goes; its folder is made.
        offline: Never download.
        sha256: The hash that the file must have, in hexadecimal digits; empty if it is not known.
    """
    if offline:
        return "not downloading (offline)"
    from httpx2 import HTTPError, InvalidURL
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # not in __all__

    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(path.with_name(f".{path.name}.lock")):
            if path.is_file():  # another process fetched it while this one waited
                return None
            with partial.open("ab") as file:
                http_get(
                    url,
                    file,
                    resume_size=file.tell(),
                    headers={"Accept-Encoding": "identity"},  # ranges of the file as it is
                    displayed_filename=path.name,
                )
            found = file_sha256(partial) if sha256 else ""
            if found != sha256:
                partial.unlink()
                return f"what {url} gives is another file (sha256 {found}, not {sha256})"
            partial.replace(path)
    except (HTTPError, InvalidURL, OSError, ValueError) as error:
        if getattr(getattr(error, "response", None), "status_code", None) == 416:
            partial.unlink()  # longer than the file: begin anew next time
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return f"cannot be downloaded ({reason[0]})"
    return None
