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
    killed_training,
    memory,
    mutated_folders,
    readers,
    registered_encoders,
    resumed_runs,
)
from tests.torture.bad_arguments import BAD_ARGUMENTS, BAD_ARGUMENTS_TRAINED
from tests.torture.bad_data import BAD_DATA, BAD_DATA_TRAINED
from tests.torture.independence import INDEPENDENCE
from tests.torture.random_state import GLOBAL_RANDOM_STATE

if TYPE_CHECKING:
    from tests.torture.frame import Campaign

CAMPAIGNS: tuple[Campaign, ...] = (
    BAD_DATA,
    BAD_DATA_TRAINED,
    BAD_ARGUMENTS,
    BAD_ARGUMENTS_TRAINED,
    registered_encoders.CAMPAIGN,
    GLOBAL_RANDOM_STATE,
    INDEPENDENCE,
    mutated_folders.CAMPAIGN,
    flipped_bits.CAMPAIGN,
    hostile_folders.CAMPAIGN,
    killed_saves.CAMPAIGN,
    readers.ONE_WRITER,
    readers.TWO_WRITERS,
    killed_training.CAMPAIGN,
    resumed_runs.CAMPAIGN,
    downloads.CAMPAIGN,
    killed_downloads.CAMPAIGN,
    killed_embedding.CAMPAIGN,
    memory.CAMPAIGN,
)
