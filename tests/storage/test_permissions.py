"""Files and folders get the permissions of what they replace, else those that the umask allows."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from spatialwhisperer._storage.permissions import as_usual, check_writable, take_over

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_temporary_folder_gets_what_the_umask_allows(tmp_path: Path, umask: Callable[[int], None]) -> None:
    umask(0o027)
    (tmp_path / "made").mkdir(mode=0o700)
    (tmp_path / "made" / "a").touch(mode=0o600)
    as_usual(tmp_path, [tmp_path / "made", tmp_path / "made" / "a"])
    assert (mode(tmp_path / "made"), mode(tmp_path / "made" / "a")) == (0o750, 0o640)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_takes_over_those_of_another_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "a").touch()
    for permissions in (0o2775, 0o700):
        (tmp_path / "old").chmod(permissions)
        take_over(tmp_path / "old", tmp_path / "new")
        assert mode(tmp_path / "new") == mode(tmp_path / "new" / "inner") == permissions
        assert mode(tmp_path / "new" / "inner" / "a") == permissions & 0o666
    take_over(tmp_path / "none", tmp_path / "new")
    assert mode(tmp_path / "new") == 0o700


@pytest.mark.usefixtures("ordinary_user")
def test_what_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "folder" / "a"
    folder.mkdir()
    file.touch(mode=0o444)
    check_writable(folder, tmp_path / "none", remedy="Do so.")
    with pytest.raises(PermissionError, match=rf"^{re.escape(str(file))} cannot be written: .* Do so\.$"):
        check_writable(folder, file, remedy="Do so.")
    folder.chmod(0o555)
    with pytest.raises(PermissionError, match=rf"^{re.escape(str(folder))} cannot be written"):
        check_writable(folder, remedy="")
