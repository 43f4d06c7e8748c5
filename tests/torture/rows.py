"""The campaigns, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.torture import killed_training, resumed_runs

if TYPE_CHECKING:
    from tests.torture.frame import Campaign

CAMPAIGNS: tuple[Campaign, ...] = (
    killed_training.CAMPAIGN,
    resumed_runs.CAMPAIGN,
)
