from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from spatialwhisperer._storage.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_file_is_put_into_place_when_it_is_complete(tmp_path: Path) -> None:
    place = tmp_path / "a.txt"
    place.write_text("old")
    with whole_file(place) as temporary:
        temporary.write_text("new")
        assert place.read_text() == "old"
    assert place.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_keeps_the_former_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    place = tmp_path / "a.txt"
    place.write_text("old")
    with pytest.raises(IsADirectoryError), whole_file(place) as temporary:
        temporary.write_text("half") and tmp_path.write_text("a folder")
    assert place.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_gets_the_permissions_of_the_one_that_it_replaces(tmp_path: Path, umask: Callable[[int], None]) -> None:
    for mask, new in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        umask(mask)
        place = tmp_path / f"{mask:o}.txt"
        for before, after in ((None, new), (0o600, 0o600), (0o664, 0o664), (0o440, 0o440)):
            if before is not None:
                place.chmod(before)
            with whole_file(place) as temporary:
                # nobody else reads what is not finished
                assert temporary.stat().st_mode & 0o777 == 0o600
                temporary.write_text("content")
            assert place.stat().st_mode & 0o777 == after


def test_a_link_stays_and_the_file_that_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    place, link = tmp_path / "far" / "a.txt", tmp_path / "b.txt"
    link.symlink_to(place)
    for content in ("first", "second"):
        with whole_file(link) as temporary:
            temporary.write_text(content)
        assert link.is_symlink()
        assert not place.is_symlink()
        assert place.read_text() == content
    assert {path.name for path in tmp_path.iterdir()} == {"far", "b.txt"}
