"""A bounded, seeded part of every campaign: no trial fails."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.torture.rows import CAMPAIGNS

if TYPE_CHECKING:
    from tests.torture.frame import Campaign


@pytest.mark.slow
@pytest.mark.parametrize("campaign", [pytest.param(c, id=c.name) for c in CAMPAIGNS])
def test_every_trial_holds(campaign: Campaign) -> None:
    if campaign.posix and os.name != "posix":
        pytest.skip("needs signals")
    counts = campaign.run(campaign.bounded)
    assert not counts.failures
    assert counts.tried == campaign.bounded
