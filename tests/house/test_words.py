"""The field's standard terms, so that a reader from scanpy understands each text at first reading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import spatialwhisperer

PACKAGE = Path(spatialwhisperer.__file__).parent
INSTEAD = {
    r"\bslots?\b": "key of .obsm, column of .obs",
    r"\bspread\b": "standard deviation",
    r"\bsurpris\w*": "cross-entropy",
    r"\bcure[sd]?\b": "remedy",
    r"\bglass\b": "background",
    r"\btaught\b": "trained on",
    r"\bright labels?\b": "correct label, ground truth",
    r"\b(a|the|its|their|this|neighbour|prompt)[ _]shares?\b": "fraction, proportion, probability",
    r"\b(image|text|gene)[ _]side\b": "modality",
    r"\bNot given\b": "``None`` takes …",
    r"\btakes? off\b": "subtract",
    r"\bstrange\b": "outside the training range",
}


@pytest.mark.parametrize(("pattern", "instead"), INSTEAD.items(), ids=INSTEAD.values())
def test_words_of_our_own_are_not_used(pattern: str, instead: str) -> None:
    found = [
        f"{path.relative_to(PACKAGE)}, line {number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not found, f"write {instead}"
