"""Texts of others on our pages, in our files and on the terminal: shown as they are, and inert.

Jinja2 escapes the HTML of the site. What it leaves are control characters (a terminal's colours)
and the marks that turn the direction of writing, which could make one name look like another; both
are written out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any, Final

from markupsafe import Markup

_HIDDEN: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_BREAKS: Final = re.compile(r"[\t\n\r\x0b\x0c\x85\u2028\u2029]+")
_TAG: Final = re.compile(r"<(?=[A-Za-z/!?])")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9.+_-]+")
LONGEST_NAME: Final = 80
"""Characters of a file name; file systems allow 255 bytes."""


def visible(value: Any) -> Any:
    """Write the characters of a text that are not seen as their codes.

    Args:
        value: A text; anything else, and HTML that is marked as such, is left alone.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], value)


def single_line(text: str) -> str:
    """Write a text on one line, with the characters that are not seen as their codes."""
    return str(visible(_BREAKS.sub(" ", text)))


def markdown_text(text: str) -> str:
    """Write a text for Markdown on one line, without HTML."""
    return _TAG.sub("&lt;", single_line(text))


def with_texts(value: Any, write: Callable[[str], str]) -> Any:
    """Copy dataclasses, mappings and tuples, each text in them through `write`; enums stay."""
    if isinstance(value, str):
        return value if isinstance(value, Enum) else write(value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: with_texts(getattr(value, f.name), write) for f in fields(value)}
        return replace(value, **changed)
    if isinstance(value, Mapping):
        return {write(name): with_texts(each, write) for name, each in value.items()}
    return tuple(with_texts(each, write) for each in value) if isinstance(value, tuple) else value


def file_names(texts: Iterable[str]) -> dict[str, str]:
    """Give each text a file name of its own, without an ending.

    A name consists of letters, digits and `.+_-`, does not begin with a dot, and differs from the
    others also where the file system does not tell capitals apart. A text that is such a name keeps
    it; the others get the beginning of a hash.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for text in dict.fromkeys(texts):
        name = _UNSAFE.sub("-", text).lstrip(".")[:LONGEST_NAME]
        if not name or name != text or name.lower() in taken:
            name += "-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        names[text] = name
        taken.add(name.lower())
    return names


def for_script(value: Any) -> str:
    """Write a value as JSON that may stand in a script: ASCII alone, and no `<`.

    Raises:
        ValueError: A number is not finite, which no JSON can hold.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
