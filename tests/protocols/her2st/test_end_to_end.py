from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import spatialwhisperer as sw
from spatialwhisperer.protocols.her2st import end_to_end


def test_the_interval_is_that_of_a_paired_t_test_over_genes() -> None:
    rng = np.random.default_rng(0)
    frozen, gain = rng.normal(0.1, 0.05, 40), rng.normal(0.02, 0.01, 40)
    table = pd.DataFrame({"frozen": frozen, "trained": frozen + gain, "preset": "bleep", "network": "resnet50"})
    row = end_to_end.summary(table.assign(gene=range(40), cpu_seconds=12.3)).loc["`bleep`"]
    low, high = stats.t.interval(0.95, 39, gain.mean(), stats.sem(gain))
    assert row["difference"] == f"{gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
    assert (row["frozen"], row["trained"]) == (f"{frozen.mean():.3f}", f"{(frozen + gain).mean():.3f}")
    assert (row["genes"], row["CPU s"]) == (40, "12")


def test_every_preset_is_one_whose_paper_trains_a_network() -> None:
    published = sw.models.presets()["published_image_encoder"]
    for name in end_to_end.PRESETS:
        assert published[name] == end_to_end.NETWORKS.get(name, "resnet50")


def test_a_preset_without_a_network_is_refused_before_anything_is_read(tmp_path) -> None:
    with pytest.raises(ValueError, match="No image network is trained for the preset 'whisperer'; choose among bleep"):
        end_to_end.run(tmp_path, tmp_path / "out", presets=["bleep", "whisperer"])
    assert not (tmp_path / "out").exists()
