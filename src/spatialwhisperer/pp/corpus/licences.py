"""What licences say about passing features on."""

from __future__ import annotations

import re

_OPEN = (
    r"cc0",
    r"cc[ -]by(?![ -]?(nc[ -]?)?nd)",
    r"creative commons attribution(?!.*no ?deriv)",
    r"public domain",
    r"\bmit\b",
    r"\bbsd\b",
    r"\bapache",
    r"\bodbl\b|\bodc\b",
    r"\bgpl",
    r"\bpddl\b",
)
_CLOSED = (r"no ?deriv", r"\bnd\b", r"all rights reserved", r"gated", r"not allow", r"forbid", r"no redistribution")


def shareable(licence: str) -> bool:
    """Whether a licence is known to allow that features of the data are passed on.

    Licences of which nothing is known, and those without derivatives (ND), do not. Licences for non-commercial use (NC) do: under the same
    terms.
    """
    text = licence.casefold().replace("_", "-")
    return not any(re.search(p, text) for p in _CLOSED) and any(re.search(p, text) for p in _OPEN)
