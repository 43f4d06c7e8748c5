"""Tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table."""
    head = [frame.index.name or "", *map(str, frame.columns)]
    body = [[str(i), *map(str, row)] for i, row in zip(frame.index, frame.fillna("–").to_numpy(), strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body])
