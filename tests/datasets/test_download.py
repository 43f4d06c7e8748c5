from __future__ import annotations

from io import BytesIO

import pytest

from spatialwhisperer.datasets._files import download


def test_a_file_of_the_largest_size_is_kept_and_one_byte_more_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_LARGEST", 8)
    file = BytesIO()
    bounded = download._Bounded(file)
    assert [bounded.write(b"12345"), bounded.write(b"678")] == [5, 3]
    with pytest.raises(ValueError, match="more than 8 bytes"):
        bounded.write(b"9")
    assert file.getvalue() == b"12345678"
