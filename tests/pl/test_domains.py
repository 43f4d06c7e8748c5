from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.pl.domains import domains, match_domains
from spatialwhisperer.tl.domains import spatial_domains


def test_domains_take_the_colours_of_their_regions(section: Any) -> None:
    table = section["table"]
    spatial_domains(section, use="observed", n_domains=7)
    table.obs.loc[table.obs_names[0], "sw_domain"] = np.nan
    axes: Any = domains(section, truth="cell_type")
    assert len(axes) == 3
    assert "ARI" in axes[2].get_title()
    truth = dict(zip(table.obs["cell_type"].cat.categories, table.uns["cell_type_colors"], strict=True))
    own = dict(zip(table.obs["sw_domain"].cat.categories, table.uns["sw_domain_colors"], strict=True))
    matched = match_domains(
        table.obs["sw_domain"].astype(object).where(table.obs["sw_domain"].notna(), None).to_numpy(object),
        table.obs["cell_type"].astype(str).to_numpy(object),
    )
    assert len(matched) == 5
    for domain, region in matched.items():
        assert own[domain] == truth[region]
    free = [c for d, c in own.items() if d not in matched]
    assert len(free) == 2
    assert not set(free) & set(truth.values())
    words = [t.get_text() for t in axes[2].get_legend().get_texts()]
    assert words[-1] == "no label"
    assert sum("(" in w for w in words) == 5
    drawn = [mpl.colors.to_hex(c) for c in axes[2].collections[0].get_facecolor()]
    assert drawn[0] == "#b8b8b8"
    assert drawn[1] == own[table.obs["sw_domain"].iloc[1]]


def test_domains_are_matched_one_to_one() -> None:
    domain = np.array(["0", "0", "0", "1", "1", "2", None], object)
    truth = np.array(["a", "a", "b", "a", "a", None, "b"], object)
    # giving a to 1 and b to 0 shares three rows, as many as giving a to 0 alone would not
    assert match_domains(domain, truth) == {"0": "b", "1": "a"}
    assert match_domains(domain, np.full(7, None, object)) == {}


def test_without_truth_and_several_keys(section: Any) -> None:
    spatial_domains(section, use="observed", n_domains=3)
    spatial_domains(section, use="observed", n_domains=3, smooth=0.5, key_added="smooth")
    axes = domains(section, key=["sw_domain", "smooth"], with_image=False)
    assert [ax.get_title() for ax in axes] == ["P3_spots: sw_domain", "P3_spots: smooth"]
    with pytest.raises(KeyError, match=r"Run sw\.tl\.spatial_domains"):
        domains(section, key="nothing")
    with pytest.raises(KeyError, match=r"'tissue' is not in \.obs"):
        domains(section, truth="tissue")


def test_domains_left_over_have_colours_of_their_own_whatever_colours_are_called(section: Any) -> None:
    table = section["table"]
    table.obs["seven"] = pd.Categorical((np.arange(table.n_obs) % 7).astype(str))
    table.uns["cell_type_colors"] = [f"C{i}" for i in range(5)]
    domains(section, key="seven", truth="cell_type")
    assert len(set(map(mpl.colors.to_hex, table.uns["seven_colors"]))) == 7
