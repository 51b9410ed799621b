"""Mutants of JSON and tables: what a disk, a hand or an attacker can make of a file."""

import copy
import json

import numpy as np
import pyarrow as pa

ODD = (
    *(None, True, 0, -1, 1.5, 10**18, -(10**18), 1e300, float("nan"), float("inf")),
    *("", "..", "../../x", "/etc/passwd", "a\nb", "\x1b[31m", "<b>", "=1+1", "$\\frac$", "\udce9"),
    *("x" * 5000, [], [[]], {}, {"a": {"b": []}}, [None], ["a", 1]),
)
"""Values of every type, among them such as break paths, lines, spreadsheets and encodings."""


def mutated_json(value, rng):
    """JSON text in which one to three values are replaced, gone, doubled, wrapped or exchanged."""
    value = copy.deepcopy(value)
    for _ in range(rng.integers(1, 4)):
        holder, key = _place(value, rng)
        if holder is None:
            break
        match rng.integers(6):
            case 0:
                del holder[key]
            case 1:
                holder[key] = [holder[key]] * int(rng.integers(1, 3))
            case 2:
                other, name = _place(value, rng)
                holder[key] = copy.deepcopy(other[name])
            case _:
                holder[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
    text = json.dumps(value)
    match rng.integers(12):
        case 0:
            return text[: int(rng.integers(len(text)))]
        case 1:
            at = int(rng.integers(len(text)))
            return text[:at] + chr(int(rng.integers(1, 400))) + text[at + 1 :]
        case 2:
            return text.replace("1", "1" * int(rng.integers(2, 400)), 1)
    return text


def _place(value, rng):
    """A holder and a key or an index of it, at any depth."""
    holder, key = None, None
    while isinstance(value, dict | list) and len(value):
        if holder is not None and rng.integers(4) == 0:
            break
        keys = list(value) if isinstance(value, dict) else range(len(value))
        holder, key = value, keys[int(rng.integers(len(keys)))]
        value = holder[key]
    return holder, key


def mutated_rows(table, rng):
    """A table of the same schema, as far as it can hold them, with odd values in it."""
    schema = table.schema
    rows = table.to_pylist()
    for _ in range(rng.integers(1, 4)):
        row = rows[int(rng.integers(len(rows)))]
        name = schema.names[int(rng.integers(len(schema.names)))]
        old = row[name]
        odd = ODD[rng.integers(len(ODD))]
        match rng.integers(5):
            case 0:
                row[name] = None
            case 1 if isinstance(old, list) and old:
                row[name] = old[:-1] if rng.integers(2) else [*old, old[0]]
            case 2 if isinstance(old, list) and old:
                row[name] = [None, *old[1:]]
            case 3 if isinstance(old, float):
                row[name] = float(rng.choice([np.nan, np.inf, -1.0, 0.0, 1e300, 1e-300]))
            case _:
                row[name] = odd
        try:
            pa.Table.from_pylist(rows, schema)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            row[name] = old
    match rng.integers(12):
        case 0:
            return table.drop_columns([schema.names[int(rng.integers(len(schema.names)))]])
        case 1:
            i = int(rng.integers(len(schema.names)))
            kind = (pa.string(), pa.int32(), pa.list_(pa.float32()))[rng.integers(3)]
            return table.set_column(i, schema.names[i], pa.nulls(len(table), kind))
    return pa.Table.from_pylist(rows, schema)
