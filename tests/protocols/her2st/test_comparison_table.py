from __future__ import annotations

import pandas as pd

from spatialwhisperer.protocols.her2st.comparison_table import report


def test_a_preset_that_does_not_beat_the_scalar_is_named() -> None:
    keys = {"protocol": "strict", "features": "f", "split": "section", "fold": "C2", "seed": 0, "seconds": 1.0}
    rows = [
        {"preset": preset, "predictor": predictor, "metric": "pearson", "gene_list": "HEG50", "value": value, **keys}
        for preset, predictor, value in (
            ("(baselines)", "darkness", 0.2),
            ("bleep", "prediction", 0.1),
            ("whisperer", "prediction", 0.3),
        )
    ]
    text = report(pd.DataFrame(rows))
    assert "Not above one scalar per spot (darkness, r HEG50 0.200): bleep." in text
    assert "(not comparable)" in text
