from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.annotation.label_sets import LIZARD
from spatialwhisperer.protocols.her2st.trained_networks import NetworkOptions
from spatialwhisperer.protocols.papers import run
from spatialwhisperer.protocols.papers.rows import rows_of
from spatialwhisperer.protocols.papers.sources import Source
from tests.datasets.conftest import write_lizard

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_without_data_says_what_each_row_needs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no data set of the paper 'bleep'.*liver: .*GSE240429.*almaan/her2st"):
        run.run("bleep", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "lizard").mkdir()
    with pytest.raises(FileNotFoundError, match="Lizard: it needs a model: --model"):
        run.run("spatialwhisperer", tmp_path, tmp_path / "out")


def test_unknown_papers_and_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no paper 'stnet'; choose one of bleep"):
        run.run("stnet", tmp_path, tmp_path)
    with pytest.raises(ValueError, match="no row 'cSCC'; it has 'liver', 'HER2\\+, sections'"):
        run.run("bleep", tmp_path, tmp_path, options=run.Options(rows=("cSCC",)))
    with pytest.raises(SystemExit):
        main(["paper", "stnet", "--data", str(tmp_path)])


@pytest.mark.usefixtures("model")  # which writes run_folder
def test_tiles_are_labelled_by_a_model_beside_the_published_methods(run_folder: Path, tmp_path: Path) -> None:
    write_lizard(tmp_path / "lizard", names=LIZARD.images, size=(60, 60))
    listed = (tmp_path / "lizard" / "Lizard_Labels" / "info.csv").read_text()
    # those that a smoke run looks at
    write_lizard(tmp_path / "lizard", names=LIZARD.images[:2], size=(900, 900))
    (tmp_path / "lizard" / "Lizard_Labels" / "info.csv").write_text(listed)
    model = str(run_folder / "model")
    options = run.Options(model=model, smoke=True)
    table = run.run("spatialwhisperer", tmp_path, tmp_path / "out", options=options)
    assert table["row"].tolist() == ["Lizard"]
    text = (tmp_path / "out" / "paper_spatialwhisperer.md").read_text()
    assert f"| Lizard | spatialwhisperer | measured | {table['value'].iloc[0]:.3f} |" in text
    for method, value in LIZARD.published.items():
        assert f"| Lizard | {method} | published | {value:.3f} |" in text
    assert "Left out: PathoCell: it is not there" in text


def test_other_sections_or_options_are_another_run(tmp_path: Path) -> None:
    (row, *_) = (r for r in rows_of("bleep") if r.name == "HER2+, sections")
    some, more = ({name: name[0] for name in names} for names in (("C2", "C3"), ("C2", "C3", "C4")))

    def files(patients: dict[str, str], **options: Any) -> set[Path]:
        source = Source(patients, lambda name: pytest.fail(f"{name} is read"))
        found = run._RowRun(row, source, tmp_path, tmp_path, run.Options(**options))
        return {path for _, path in found.tasks()}

    kinds = [
        files(some),
        files(more),
        files(some, networks=NetworkOptions(spots=50)),
        files(some, networks=NetworkOptions(epochs=5)),
        files(some, smoke=True),
        files(some, image="trained:resnet18"),
    ]
    assert files(some) == kinds[0]
    assert len(set().union(*kinds)) == sum(map(len, kinds))


@pytest.mark.slow
def test_mclstexp_runs_on_real_sections_and_a_finished_fold_is_kept(data_folder: Path, tmp_path: Path) -> None:
    arguments = ["paper", "mclstexp", "--data", str(data_folder), "--out", str(tmp_path), "--smoke"]
    main(arguments)
    table = pd.read_csv(tmp_path / "paper_mclstexp.csv")
    assert set(table["row"]) == {"HER2+, sections", "HER2+, patients"}
    text = (tmp_path / "paper_mclstexp.md").read_text()
    assert "| HER2+, sections | mclstexp | published | 0.230 | 0.387 | 0.590 | 0.581 |" in text
    assert "Left out: Alex+10x" in text
    kept = sorted((tmp_path / "papers").rglob("*.csv"))
    assert len(kept) == 2
    stamps = [path.stat().st_mtime_ns for path in kept]
    main(arguments)
    assert [path.stat().st_mtime_ns for path in kept] == stamps
