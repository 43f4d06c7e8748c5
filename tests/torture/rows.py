"""The campaigns, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.torture import (
    downloads,
    flipped_bits,
    hostile_folders,
    killed_downloads,
    killed_embedding,
    killed_saves,
    memory,
    mutated_folders,
    readers,
)

if TYPE_CHECKING:
    from tests.torture.frame import Campaign

CAMPAIGNS: tuple[Campaign, ...] = (
    mutated_folders.CAMPAIGN,
    flipped_bits.CAMPAIGN,
    hostile_folders.CAMPAIGN,
    killed_saves.CAMPAIGN,
    readers.ONE_WRITER,
    readers.TWO_WRITERS,
    downloads.CAMPAIGN,
    killed_downloads.CAMPAIGN,
    killed_embedding.CAMPAIGN,
    memory.CAMPAIGN,
)
