from __future__ import annotations

import pandas as pd

from spatialwhisperer.protocols.her2st.comparison_table import report


def test_a_preset_that_does_not_beat_the_scalar_is_named() -> None:
    keys = {"protocol": "strict", "features": "f", "split": "section", "fold": "C2", "seed": 0, "seconds": 1.0}
    rows = [
        {
            "preset": preset,
            "predictor": predictor,
            "metric": "pearson",
            "gene_list": "HEG50",
            "value": value,
            **keys,
            "section": "C2",
        }
        for preset, predictor, value in (
            ("(baselines)", "darkness", 0.2),
            ("bleep", "prediction", 0.1),
            ("whisperer", "prediction", 0.3),
        )
    ]
    text = report(pd.DataFrame(rows))
    assert "Not above one scalar per spot (darkness, r HEG50 0.200): bleep." in text
    assert "(not comparable)" in text


def test_presets_are_compared_with_the_ridge_section_by_section() -> None:
    keys = {"protocol": "strict", "features": "f", "split": "section", "seed": 0, "seconds": 1.0}
    rows = []
    for i, fold in enumerate(("C2", "C3", "C4", "C5")):
        for preset, predictor, value in (
            ("(baselines)", "plain ridge, one tile size", 0.1 * i),
            ("(baselines)", "plain ridge, four tile sizes", 0.1 * i + 0.05),
            ("bleep", "prediction", 0.1 * i - 0.02 + 0.01 * (i % 2)),
            ("whisperer", "prediction", 0.1 * i + 0.05 + 0.01 * (i % 2)),
        ):
            rows.append(
                {"preset": preset, "predictor": predictor, "metric": "pearson", "gene_list": "HEG50", "value": value}
                | keys
                | {"fold": fold, "section": fold}
            )
    text = report(pd.DataFrame(rows))
    # Student's t with three degrees of freedom: 3.18 times .00289, although the sections differ by a hundred times that
    assert "-0.015 [-0.024, -0.006]" in text
    assert "+0.005 [-0.004, +0.014]" in text
    two = report(pd.DataFrame([r for r in rows if r["fold"] in ("C2", "C3")]))
    assert "C2: -0.020, C3: -0.010" in two
