from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spatialwhisperer._storage.files import whole_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_put_into_place_when_it_is_complete(tmp_path: Path) -> None:
    place = tmp_path / "a.txt"
    place.write_text("old")
    with whole_file(place) as temporary:
        temporary.write_text("new")
        assert place.read_text() == "old"
    assert place.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert place.stat().st_mode & 0o777 == 0o644


def test_an_error_keeps_the_former_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    place = tmp_path / "a.txt"
    place.write_text("old")
    with pytest.raises(IsADirectoryError), whole_file(place) as temporary:
        temporary.write_text("half") and tmp_path.write_text("a folder")
    assert place.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
