"""Initial vectors of the tokens: what a number and an element are like, before any training.

Tokens that stand for near values, and elements with like properties, start with like vectors, so
that what is learned of one holds for its neighbours. Values are mapped by random Fourier features
(Rahimi and Recht, NIPS 2007), whose products are a Gaussian kernel of the difference.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray
from pymatgen.core import Element

from t2relax.text.tokens import COARSE_TOKENS, FINE_TOKENS, REST_TOKENS, Tokenizer

Floats = NDArray[np.float64]

PROPERTIES = (
    "X",
    "mendeleev_no",
    "row",
    "group",
    "molar_volume",
    "atomic_radius",
    "van_der_waals_radius",
    "average_ionic_radius",
    "average_cationic_radius",
    "average_anionic_radius",
    "ionization_energy",
    "electron_affinity",
    "melting_point",
    "atomic_mass",
)
_KIND, _OWN = 0.5, 0.25
"""Share of a token's vector that tells its kind (element, length, …), and that is its own."""
_ELEMENT = re.compile(r"\n?([A-Z][a-z]?)(?: \1)?| ([A-Z][a-z]?)")


def initial_vectors(tokenizer: Tokenizer, width: int, seed: int) -> NDArray[np.float32]:
    """Return the (vocabulary, width) initial vectors, of about unit variance.

    Args:
        tokenizer: its vocabulary.
        width: The width of the model.
        seed: The seed of the random features.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(len(tokenizer), width))
    groups: dict[str, list[int]] = {}
    for i, token in enumerate(tokenizer.vocabulary):
        groups.setdefault(_kind(token), []).append(i)
    for kind, ids in groups.items():
        tokens = [tokenizer.vocabulary[i] for i in ids]
        if kind != "other":
            shared = _features(kind.split(":")[0], tokens, width)
            rest = _KIND * rng.normal(size=width) + _OWN * vectors[ids]
            vectors[ids] = np.sqrt(1 - _KIND**2 - _OWN**2) * shared + rest
    return vectors.astype(np.float32)


def _kind(token: str) -> str:
    """The meaning of a token; behind a colon, the place where it stands."""
    if token in _COARSE:
        return "coarse"
    if token in _PARTS:
        return f"part:{len(token)}"
    if re.fullmatch(r" 0\.\d\d(\d{3})?", token):
        return f"fraction:{len(token)}"
    if re.fullmatch(r" \d+\.\d(00)?", token):
        return f"length:{'angle' if token.endswith('000') else ''}"
    if re.fullmatch(r" ?\d{1,2}", token):
        return f"count:{token[0] == ' '}"
    if match := _ELEMENT.fullmatch(token):
        return "element:" + token.replace(match[1] or match[2], "X")
    return "other"


_COARSE = frozenset(COARSE_TOKENS)
_PARTS = frozenset((*FINE_TOKENS, *REST_TOKENS))


def _features(kind: str, tokens: Sequence[str], width: int) -> Floats:
    """Return (n_tokens, width); the same value has the same features wherever it stands."""
    rng = np.random.default_rng(len(kind))
    if kind == "element":
        return _elements([re.sub(r"[^A-Za-z]", " ", t).split()[0] for t in tokens], width, rng)
    values = np.array([float(token) for token in tokens])
    if kind == "coarse":
        # The middle of the values from `+01.9` on; widest where changes are rare.
        middle = values + np.where([" -" in token for token in tokens], -0.05, 0.05)
        return _fourier(np.arcsinh(middle / 0.5), width, (0.7, 2.0, 6.0), rng)
    if kind == "part":
        return _fourier(values / 10 ** np.char.str_len(tokens), width, (1.0, 3.0), rng)
    if kind == "fraction":
        waves = rng.integers(0, 7, width)  # a coordinate is periodic
        return _cos(2 * np.pi * values[:, None] * waves, rng)
    if kind == "length":
        return _fourier(np.log(values + 0.1), width, (0.7, 2.5, 10.0), rng)
    return _fourier(np.log(values + 1), width, (1.0, 3.0), rng)


def _fourier(x: Floats, width: int, scales: Sequence[float], rng: np.random.Generator) -> Floats:
    waves = rng.normal(size=width) * np.resize(scales, width)
    return _cos(x[:, None] * waves, rng)


def _cos(phases: Floats, rng: np.random.Generator) -> Floats:
    features: Floats = np.sqrt(2) * np.cos(phases + rng.uniform(0, 2 * np.pi, phases.shape[1]))
    return features


def _elements(symbols: Sequence[str], width: int, rng: np.random.Generator) -> Floats:
    table = element_table()
    projection = rng.normal(size=(table.shape[1], width)) / np.sqrt(table.shape[1])
    features: Floats = table[[atomic_numbers[symbol] for symbol in symbols]] @ projection
    return features


def element_table() -> Floats:
    """Return (119, n_features) of zero mean and unit variance over the elements, by atomic number.

    Properties as pymatgen lists them and covalent radii (a missing one is the mean), and group,
    row and block one-hot.
    """
    elements = [Element.from_Z(z) for z in range(1, 119)]
    with warnings.catch_warnings():  # pymatgen warns of every value it lacks
        warnings.simplefilter("ignore")
        numeric = np.array([[_property(e, name) for name in PROPERTIES] for e in elements])
    numeric = np.column_stack([numeric, covalent_radii[1:119]])
    hot = [
        np.equal.outer(labels, sorted(set(labels)))
        for labels in ([e.group for e in elements], [e.row for e in elements])
    ]
    hot.append(np.equal.outer(np.array([e.block for e in elements]), np.array(list("spdf"))))
    table = np.column_stack([_standard(numeric), *(0.7 * _standard(h.astype(float)) for h in hot)])
    return np.vstack([np.zeros(table.shape[1]), table])


def _property(element: Element, name: str) -> float:
    try:
        value = getattr(element, name)
    except KeyError:  # pymatgen's table has no row for some of the heaviest
        value = None
    return np.nan if value is None else float(value)


def _standard(columns: Floats) -> Floats:
    off = (columns - np.nanmean(columns, axis=0)) / np.nanstd(columns, axis=0)
    filled: Floats = np.clip(np.nan_to_num(off), -3, 3)
    return filled
