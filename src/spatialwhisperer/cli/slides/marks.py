"""What a GeoJSON file or a report was made of, as it says itself: the request of the result beside which it lies."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from html import escape, unescape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "sw_command"
"""Member of the GeoJSON, and name of the ``meta`` element of the report."""

_LARGEST = 2**22
_GEOJSON = f'{{"type":"FeatureCollection","{NAME}":'
_META = re.compile(rf'<meta name="{NAME}" content="([^"]*)">')


def meta(request: Mapping[str, Any]) -> str:
    """Element of an HTML page that states a request."""
    return f'<meta name="{NAME}" content="{escape(json.dumps(request), quote=True)}">'


def request_of(path: Path) -> dict[str, Any] | None:
    """The request that a GeoJSON file or a report states; ``None`` where it states none. Only its beginning is read.

    Parameters
    ----------
    path
        The file.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(_LARGEST).decode("utf-8", "replace")
        if head.startswith(_GEOJSON):
            found = json.JSONDecoder().raw_decode(head, len(_GEOJSON))[0]
        else:
            stated = _META.search(head)
            found = None if stated is None else json.loads(unescape(stated[1]))
    except (OSError, EOFError, zlib.error, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
