"""The campaigns, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.torture import flipped_bits, killed_saves, mutated_folders, readers

if TYPE_CHECKING:
    from tests.torture.frame import Campaign

CAMPAIGNS: tuple[Campaign, ...] = (
    mutated_folders.CAMPAIGN,
    flipped_bits.CAMPAIGN,
    killed_saves.CAMPAIGN,
    readers.ONE_WRITER,
    readers.TWO_WRITERS,
)
