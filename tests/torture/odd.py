"""Values that no argument, or hardly any, is meant to have."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable

ODD: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "NaN": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "-1": lambda: -1,
    "0": lambda: 0,
    "1.5": lambda: 1.5,
    "1e12": lambda: 1e12,
    "1e-12": lambda: 1e-12,
    "2**40": lambda: 2**40,
    "10**400": lambda: 10**400,
    "-0.0": lambda: -0.0,
    "True": lambda: True,
    "complex": lambda: 1 + 2j,
    "number as text": lambda: "8",
    "empty text": lambda: "",
    "blank": lambda: " ",
    "misspelt": lambda: "misspelt",
    "parent folder": lambda: "..",
    "slash": lambda: "a/b",
    "NUL": lambda: "a\0b",
    "line break": lambda: "a\nb",
    "300 letters": lambda: "x" * 300,
    "braces": lambda: "{",
    "other alphabet": lambda: "\u05d0\ud800",
    "bytes": lambda: b"x",
    "empty list": list,
    "list of a number": lambda: [1],
    "mixed list": lambda: ["a", 7],
    "list of None": lambda: [None],
    "list of NaN": lambda: [math.nan],
    "list of lists": lambda: [["a"], []],
    "list of a text twice": lambda: ["fat", "fat"],
    "tuple": tuple,
    "set": lambda: {"a"},
    "empty dictionary": dict,
    "dictionary": lambda: {"a": 1},
    "dictionary of None": lambda: {1: None},
    "object": object,
    "class": lambda: int,
    "function": lambda: lambda: None,
    "array": lambda: np.array([1.0, 2.0]),
    "empty array": lambda: np.array([]),
    "array of text": lambda: np.array(["a", "b"]),
    "matrix": lambda: np.eye(3),
    "NumPy NaN": lambda: np.float32("nan"),
    "NumPy number": lambda: np.int8(3),
    "NumPy text": lambda: np.str_("a"),
    "scalar array": lambda: np.array(2),
    "date": lambda: np.datetime64("2024-01-01"),
    "NA": lambda: pd.NA,
    "NaT": lambda: pd.NaT,
    "Series": lambda: pd.Series(["a", "b"]),
    "DataFrame": lambda: pd.DataFrame({"a": [1, 2]}),
    "empty DataFrame": pd.DataFrame,
    "Ellipsis": lambda: ...,
    "range": lambda: range(3),
    "slice": lambda: slice(2),
    "iterator": lambda: iter(["a"]),
    "path": lambda: Path("nowhere"),
}
