"""Domains compared with known regions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from spatialwhisperer.tl.evaluation.domains import evaluate_domains


def test_every_section_is_partitioned_on_its_own(halves: Any) -> None:
    halves.obs["region"] = halves.obs["region"].astype(object)
    halves.obs.loc[halves.obs_names[:3], "region"] = "undetermined"
    halves.obs.loc[halves.obs_names[3], "region"] = np.nan
    result = evaluate_domains(halves, "region", use="values", library_key="section", n_seeds=4)
    assert result["section"].tolist() == ["s", "t", "mean"]
    assert result["n"].tolist() == [140, 144, 284]
    assert result["n_domains"].tolist()[:2] == [2, 2]
    assert result["ari"].iloc[2] == pytest.approx(result["ari"].iloc[:2].mean())
    better = evaluate_domains(halves, "region", use="values", library_key="section", n_seeds=4, smooth=0.5)
    assert better["ari"].iloc[2] > result["ari"].iloc[2]
    one = halves[144:].copy()
    alone = evaluate_domains([one, one], "region", use="values", n_seeds=4)
    assert alone["ari"].iloc[0] == pytest.approx(result["ari"].iloc[1])
    assert "deviation over seeds" in result.attrs["convention"]


def test_agreement_and_its_deviation_are_those_of_single_runs_over_seeds(halves: Any) -> None:
    result = evaluate_domains(
        halves, "region", use="values", library_key="section", n_seeds=3, random_state=4, n_domains=3
    )
    expected: list[Any] = []
    for rows in (slice(0, 144), slice(144, 288)):
        z, region = halves.obsm["values"][rows].astype(float), halves.obs["region"].iloc[rows]
        order = sorted(range(len(z)), key=lambda i: z[i].tobytes())
        z, region = z[order], region.iloc[order]
        runs = [KMeans(3, n_init=1, random_state=seed).fit_predict(z - z.mean(axis=0)) for seed in (4, 5, 6)]
        expected.append([(adjusted_rand_score(region, c), normalized_mutual_info_score(region, c)) for c in runs])
    expected.append(np.mean(expected, axis=0))
    for (_, row), runs in zip(result.iterrows(), np.array(expected), strict=True):
        assert row[["ari", "nmi"]].tolist() == pytest.approx(runs.mean(axis=0).tolist())
        assert row[["ari_sd", "nmi_sd"]].tolist() == pytest.approx(runs.std(axis=0).tolist())
    assert result["ari_sd"].iloc[0] > 0
    assert result["n_domains"].tolist()[:2] == [3, 3]


def test_two_regions_are_needed(halves: Any) -> None:
    with pytest.raises(ValueError, match="Section s has one label only"):
        evaluate_domains(halves, "region", use="values", library_key="section", ignore=["left"])
    with pytest.raises(ValueError, match="n_domains=900 does not fit"):
        evaluate_domains(halves, "region", use="values", n_domains=900)
    with pytest.raises(KeyError, match="truth='label' is not in .obs"):
        evaluate_domains(halves, "label", use="values")


@pytest.mark.slow
def test_real_sections_agree_as_published(data_folder: Any) -> None:
    import spatialwhisperer as sw

    data = sw.datasets.her2st(["B1", "D1"], data_dir=data_folder / "her2st", with_image=False)
    result = evaluate_domains(data, "pathologist_label", use="observed", n_seeds=5)
    assert result["n"].tolist()[:2] == [269, 255]
    assert result["n_domains"].tolist()[:2] == [4, 3]
    assert result["ari"].between(0.15, 0.45).all()


def test_a_prediction_that_is_not_used_is_refused(halves: Any) -> None:
    with pytest.raises(ValueError, match="prediction applies to use='expression', which is not among 'values'"):
        evaluate_domains(halves, "region", use="values", prediction=halves)


def test_agreement_does_not_depend_on_the_order_of_the_rows(halves: Any) -> None:
    shuffled = halves[np.random.default_rng(0).permutation(halves.n_obs)].copy()
    options: dict[str, Any] = {"use": "values", "library_key": "section", "n_seeds": 2, "smooth": 0.4}
    one, other = (evaluate_domains(x, "region", **options).set_index("section") for x in (halves, shuffled))
    assert (one["ari"] == other.loc[one.index, "ari"]).all()
