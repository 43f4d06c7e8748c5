from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols import her2st_text as words
from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.annotation import aurocs, report


@pytest.mark.parametrize(
    ("annotation", "caption"),
    [
        ("cancer 2", "breast carcinoma"),
        ("cancer in situ", words.REGIONS["cancer in situ"]),
        ("adipose", words.REGIONS["adipose tissue"]),
        ("breast glands 1", words.REGIONS["breast glands"]),
        ("immune : B/plasma cells, APC", "immune cells with B cells and plasma cells and antigen-presenting cells"),
        ("unknown", None),
        (np.nan, None),
    ],
)
def test_clusters_are_put_into_words(annotation: object, caption: str | None) -> None:
    assert words.caption_cluster(annotation) == caption


def test_every_target_is_prompted_by_captions_that_training_can_hold() -> None:
    captions = {*words.REGIONS.values(), *words.CELLS.values()}
    assert {d for descriptions in words.TARGETS.values() for d in descriptions} <= captions


def test_unknown_spots_do_not_count() -> None:
    truth = pd.DataFrame({"a": pd.array([True, False, pd.NA, True], dtype="boolean")})
    scores = pd.DataFrame({"a": [2.0, 1.0, 9.0, np.nan]})
    assert aurocs(scores, truth)["auroc"].tolist() == [1.0]


def test_report_takes_the_mean_over_classes_then_over_sections() -> None:
    rows = [
        {"split": "s", "test": test, "method": "sequential", "seed": seed, "class": c, "auroc": value}
        for seed in (0, 1)
        for test, values in (("x", {"a": 0.5, "b": 0.7}), ("y", {"a": 1.0}))
        for c, value in values.items()
    ]
    text = report(pd.DataFrame(rows), 2, 0, 1.0)
    assert "| sequential (the default at this size) | 0.800 ± 0.000 |" in text


@pytest.mark.slow
def test_smoke_run_on_real_sections(data_folder, tmp_path) -> None:
    main(["annotation", "--data", str(data_folder), "--out", str(tmp_path), "--smoke"])
    table = pd.read_csv(tmp_path / "annotation.csv")
    assert {"sequential", "joint", "probe", "two-stage", "expression", "shuffled"} <= set(table["method"])
    macro = table.groupby("method")["auroc"].mean()
    # one section of a patient from three others of the same patient: measured .69 for the zero-shot labels
    assert macro["sequential"] > macro["shuffled"] + 0.05
    assert (tmp_path / "annotation.md").read_text().count("| leave one section of C out |") > 5


@pytest.mark.slow
def test_presets_are_compared_and_a_finished_fold_is_not_done_again(data_folder, tmp_path) -> None:
    arguments = ["her2st", "--data", str(data_folder), "--out", str(tmp_path), "--smoke"]
    main(arguments)
    table = pd.read_csv(tmp_path / "her2st.csv", keep_default_na=False, na_values={"value": [""]})
    assert {"(baselines)", "whisperer", "mclstexp", "bleep"} == set(table["preset"])
    r = table[(table["metric"] == "pearson") & (table["gene_list"] == "HEG50")].groupby(["preset", "predictor"])[
        "value"
    ]
    # a section of a patient from two others of the same patient, every second spot: measured .32
    assert r.mean()["whisperer", "prediction"] > r.mean()["(baselines)", "darkness"]
    assert "| mclstexp |" in (tmp_path / "her2st.md").read_text()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "folds").iterdir()}
    next(iter(files)).unlink()
    main(arguments)
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "folds").iterdir()}
    assert sum(files[path] != again[path] for path in files) == 1


def test_a_preset_that_does_not_beat_the_scalar_is_named() -> None:
    from spatialwhisperer.protocols.her2st_report import report as compare

    keys = {"protocol": "strict", "features": "f", "split": "section", "fold": "C2", "seed": 0, "seconds": 1.0}
    rows = [
        {"preset": preset, "predictor": predictor, "metric": "pearson", "gene_list": "HEG50", "value": value, **keys}
        for preset, predictor, value in (
            ("(baselines)", "darkness", 0.2),
            ("bleep", "prediction", 0.1),
            ("whisperer", "prediction", 0.3),
        )
    ]
    text = compare(pd.DataFrame(rows))
    assert "Not above one scalar per spot (darkness, r HEG50 0.200): bleep." in text
    assert "(not comparable)" in text
