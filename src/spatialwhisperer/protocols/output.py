"""What the protocols write: tables for people, and files that are there whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table, its index as the first column."""
    head = [str(frame.index.name or ""), *map(str, frame.columns)]
    body = [[str(i), *map(str, row)] for i, row in zip(frame.index, frame.fillna("–").to_numpy(), strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body])


def write_text(path: Path, text: str) -> None:
    """Write a file that an interrupted run leaves as it was; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
