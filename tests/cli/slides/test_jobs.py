from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spatialwhisperer.cli.errors import UsageError
from spatialwhisperer.cli.parser import make_parser
from spatialwhisperer.cli.slides.jobs import Job, plan
from spatialwhisperer.cli.slides.sources import find, read

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a few files that look like slides."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.tif", "b.ome.tiff", "slides/one.svs", "slides/two.png", "slides/._one.svs", "slides/readme.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for name in ("slides/three.zarr", "four.zarr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "zarr.json").touch()
    (tmp_path / "slides" / "five.h5ad").touch()
    return tmp_path


def planned(*typed: str) -> list[Job]:
    return plan(make_parser().parse_args(["annotate", *typed]))


def names(jobs: Sequence[Job]) -> list[str]:
    return [str(path) for job in jobs for path in (job.result, *job.files)]


@pytest.mark.usefixtures("here")
def test_one_slide_has_results_of_the_names_that_were_given() -> None:
    assert names(planned("a.tif", "--out", "r.zarr")) == ["r.zarr"]
    assert names(planned("a.tif", "--out", "r.1.zarr", "--geojson", "--report")) == [
        "r.1.zarr",
        "r.1.geojson",
        "r.1.html",
    ]
    typed = ("a.tif", "--out", "r.zarr", "--geojson", "q.geojson.gz", "--report", "slides/p.html")
    assert names(planned(*typed)) == ["r.zarr", "q.geojson.gz", "slides/p.html"]
    assert names(planned("slides/five.h5ad", "--out", "r.h5ad")) == ["r.h5ad"]


@pytest.mark.usefixtures("here")
def test_several_slides_have_results_named_after_them_in_folders() -> None:
    jobs = planned("a.tif", "b.ome.tiff", "--out", "r", "--geojson", "--report", "p")
    assert names(jobs) == ["r/a.zarr", "r/a.geojson", "p/a.html", "r/b.zarr", "r/b.geojson", "p/b.html"]
    assert not Path("r").exists()


@pytest.mark.usefixtures("here")
def test_a_folder_holds_slides_stores_and_tables_each_once() -> None:
    found = [job.result.name for job in planned("slides", "slides/one.svs", "--out", "r")]
    assert found == ["five.h5ad", "one.zarr", "three.zarr", "two.zarr"]


@pytest.mark.usefixtures("here")
def test_a_store_is_a_slide_and_not_a_folder_of_slides() -> None:
    assert names(planned("four.zarr", "--out", "r.zarr")) == ["r.zarr"]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("a.tif --out results", r"--out must end with \.zarr for the one slide a\.tif; found 'results'"),
        ("slides/five.h5ad --out r.zarr", r"must end with \.h5ad"),
        ("a.tif --out r.zarr --report b.ome.tiff", r"--report must be the name of a file that ends with \.html"),
        ("a.tif --out r.zarr --geojson r.txt", r"ends with \.geojson; found 'r\.txt'"),
        ("a.tif --out nowhere/r.zarr", "There is no folder 'nowhere'"),
        ("a.tif --out r.zarr --report nowhere/r.html", "There is no folder 'nowhere'"),
        ("slides --out r.zarr", "looks like the name of one result"),
        ("slides --out r --report all.html", "--report is a folder .* looks like the name of one result"),
        ("slides --out four.zarr", "must be a folder .* is none"),
        ("slides --out a.tif", "must be a folder .* is none"),
        ("slides --out slides", "another folder than that of the slides"),
        ("four.zarr --out four.zarr", r"four\.zarr is a slide, and a result of that name would replace it"),
        ("a.tif four.zarr slides/three.zarr --out slides", r"three\.zarr is a slide, and"),
    ],
)
@pytest.mark.usefixtures("here")
def test_paths_that_do_not_fit_are_refused_before_any_work(typed: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        planned(*typed.split())


def test_two_slides_of_one_name_are_refused(here: Path) -> None:
    (here / "slides" / "A.png").touch()
    with pytest.raises(UsageError, match=r"a\.tif, slides/A\.png would have results of the same name"):
        planned("a.tif", "slides/A.png", "--out", "r")


def test_a_folder_without_slides_is_refused(here: Path) -> None:
    (here / "empty").mkdir()
    (here / "empty" / "x.txt").touch()
    with pytest.raises(UsageError, match=r"empty holds no slide \(found: x\.txt\)"):
        find([Path("empty")])


def test_a_name_that_is_no_text_is_replaced() -> None:
    one = find([Path("b\udce9ta.tif")])[0]
    assert (one.file, one.name) == ("b\N{REPLACEMENT CHARACTER}ta.tif", "b_ta")


def test_a_store_that_is_empty_or_half_copied_is_one_of_the_slides(here: Path) -> None:
    (here / "slides" / "half.zarr" / "images").mkdir(parents=True)
    found = find([here / "slides" / "half.zarr", here / "slides"])
    assert [one.name for one in found] == ["half", "five", "one", "three", "two"]
    with pytest.raises(ValueError, match=r"half\.zarr holds no zarr store: it is empty or half copied"):
        read(found[0])
    assert names(planned("slides/half.zarr", "--out", "r.zarr")) == ["r.zarr"]
