"""The campaigns, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.torture import killed_training, resumed_runs
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
    GLOBAL_RANDOM_STATE,
    INDEPENDENCE,
    killed_training.CAMPAIGN,
    resumed_runs.CAMPAIGN,
)
