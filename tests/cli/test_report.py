"""The report: what it says, that names are text and not markup, and that it needs nothing but itself."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.cli.reporting.facts import Facts, Label, percent
from spatialwhisperer.cli.reporting.page import render
from spatialwhisperer.cli.reporting.pictures import Picture
from tests.cli.conftest import HOSTILE, LABELS, Folder

_VOID = {"meta", "img"}
_MARKUP = "<script>alert('1')</script>\" onload=\"x"


class Page(HTMLParser):
    """Tags with their attributes, texts, and whether every tag is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.within: list[str] = []
        self.feed(text)
        assert self.within == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.within.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.within and self.within[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def facts(**changes: Any) -> Facts:
    """Facts of a slide in which every text is markup."""
    table = sw.datasets.simulate_sections(1, 40, n_genes=20, n_reference_cells=20, random_state=0).sections["P1"][
        "table"
    ]
    values: dict[str, Any] = {
        "file": _MARKUP,
        "result": _MARKUP,
        "table": table,
        "section": None,
        "images": {_MARKUP: _MARKUP},
        "reading": _MARKUP,
        "labels": (Label(_MARKUP, "#ff0000", 30, 0.5), Label("none of them", "#00ff00", 0, float("nan"))),
        "n_rows": 40,
        "unlabelled": {_MARKUP: 10},
        "tissue": _MARKUP,
        "warnings": (_MARKUP,),
        "remarks": (_MARKUP,),
        "model": {"name": _MARKUP},
        "parameters": {_MARKUP: _MARKUP},
        "run": {"options": _MARKUP},
        "versions": {"Python": _MARKUP},
    }
    return Facts(**(values | changes))


def test_every_text_that_came_from_elsewhere_is_escaped() -> None:
    picture = Picture(_MARKUP, _MARKUP, b"jpeg", "score")
    page = Page(render(facts(), [picture], seconds=1.0, request={}))
    assert not page.all("script")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(_MARKUP) >= 15
    assert page.all("img")[0]["alt"] == _MARKUP


def test_a_report_needs_nothing_but_itself(annotated: Folder) -> None:
    for path in annotated.results.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "base", "form")]
        addresses = [a[name] or "" for _, a in page.tags for name in ("src", "href", "action") if name in a]
        assert all(re.match(r"data:image/(png|jpeg);base64,", address) for address in addresses)
        assert not re.search(r"url\(|@import|https?://", text)
        policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
        assert str(policy).startswith("default-src 'none'")


def test_a_report_shows_slide_labels_and_scores_in_pictures_with_words(annotated: Folder) -> None:
    from PIL import Image

    page = Page((annotated.results / "plain.html").read_text(encoding="utf-8"))
    images = page.all("img")
    assert len(images) == 2 + len(LABELS)
    # only the colours of labels have to be exact
    forms = ["JPEG", "PNG", *(["JPEG"] * len(LABELS))]
    for one, form in zip(images, forms, strict=True):
        assert len(str(one["alt"])) > 15
        media, _, content = str(one["src"]).partition(";base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(content)))
        assert picture.format == form
        assert media == f"data:image/{form.lower()}"
        assert min(picture.size) > 200
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert [str(one["alt"]).split(" over")[0] for one in images[2:]] == [f"Score of {name}" for name in LABELS]
    assert "Labels. The fainter a mark, the lower its confidence." in page.text


def test_the_mark_of_a_rare_label_has_the_colour_of_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from spatialwhisperer.cli.reporting import pictures

    section = sw.datasets.simulate_sections(1, 200, n_genes=20, n_reference_cells=20, random_state=0).sections["P1"]
    table = section["table"]
    names = [f"label {i}" for i in range(12)]
    codes = np.r_[np.arange(4, 12), np.arange(192) % 4]  # eight labels of one mark each
    table.obs["sw_label"] = pd.Categorical.from_codes(codes.tolist(), pd.Index(names))
    table.obs["sw_label_confidence"] = 0.9
    table.obsm["sw_label_scores"] = np.zeros((200, 12), np.float32)
    table.uns["sw_label"] = {"classes": np.array(names)}
    drawn: list[np.ndarray] = []
    write = pictures._png

    def keep(pixels: np.ndarray) -> bytes:
        drawn.append(pixels)
        return write(pixels)

    monkeypatch.setattr(pictures, "_png", keep)
    monkeypatch.setattr(pictures, "_MOST", 1)
    made = pictures.draw(section, facts(table=table, section="P1_spots"), key="sw_label", opening={})
    written = np.asarray(Image.open(io.BytesIO(made[1].content)).convert("RGB"))
    np.testing.assert_array_equal(written, drawn[0])


def test_a_report_says_how_it_was_made(annotated: Folder) -> None:
    text = Page((annotated.results / "plain.html").read_text(encoding="utf-8")).text
    for words in (
        "Labels of plain.tif",
        "1200 × 900 pixels",
        "0.5 µm per pixel by the resolution in the TIFF",
        "her2st-mini",
        "not for diagnosis",
        "--labels 'malignant cell,fat cell,T cell'",
        f"spatialwhisperer {sw.__version__}",
        "descriptions of malignant cell",
        "temperature",
        "standard deviations from the nearest training section",
    ):
        assert words in text


def test_the_name_of_a_file_is_text(annotated: Folder) -> None:
    page = Page((annotated.results / HOSTILE.replace(".tif", ".html")).read_text(encoding="utf-8"))
    assert f"Labels of {HOSTILE}" in page.text
    assert all(str(one["src"]).startswith("data:") for one in page.all("img"))


def test_labels_are_listed_with_their_fractions(annotated: Folder) -> None:
    from spatialdata import SpatialData

    given = SpatialData.read(annotated.results / "plain.zarr")["sw_tiles"].obs["sw_label"]
    text = Page((annotated.results / "plain.html").read_text(encoding="utf-8")).text
    for name in LABELS:
        n = int((given.astype(object) == name).sum())
        assert f"{name} {n} {percent(n, int(given.notna().sum()))}" in text
    missing = int(given.isna().sum())
    assert (f"{missing} of 12 rows have no label." if missing else "Every row has a label.") in text


def test_rows_without_a_label_are_counted_by_their_reason() -> None:
    from spatialwhisperer.cli.reporting import facts as module

    table = facts().table[:6].copy()
    table.obs["sw_label"] = pd.Categorical(["a", None, None, None, None, None])
    table.obs["sw_label_confidence"] = np.array([0.9, 0.2, 0.3, np.nan, np.nan, np.nan])
    assert sum(module._unlabelled(table, "sw_label", {}).values()) == 5
    assert module._unlabelled(table, "sw_label", {}) == {
        "no whole tile on the slide could be read there": 3,
        "the confidence or the margin is below what was asked for": 2,
    }
    why = [None, "row out of range", "row out of range", "no embedding", "something new", None]
    table.obs["sw_label_reason"] = pd.Categorical(why)
    assert module._unlabelled(table, "sw_label", {}) == {
        "the tile is unlike the training tissue of the model": 2,
        "no whole tile on the slide could be read there": 1,
        "something new": 1,
        "no reason is recorded": 1,
    }


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (None, "the confidence is below 0.64, the threshold of the model"),
        (0.8, "the confidence is below the --min-confidence of 0.8"),
    ],
)
def test_a_threshold_is_named_with_its_value_and_who_chose_it(typed: float | None, words: str) -> None:
    from spatialwhisperer.cli.reporting import facts as module

    table = facts().table[:2].copy()
    table.obs["sw_label"] = pd.Categorical(["a", None])
    table.obs["sw_label_reason"] = pd.Categorical([None, "below min_confidence"])
    options: Any = SimpleNamespace(min_confidence=typed, min_margin=0.25)
    said = module._thresholds({"min_confidence": 0.64 if typed is None else typed, "min_margin": 0.25}, options)
    assert module._unlabelled(table, "sw_label", said) == {words: 1}
    assert said["below min_margin"] == "the margin to the next label is below the --min-margin of 0.25"


def test_a_slide_on_which_no_row_has_a_label_has_a_report() -> None:
    none = (Label("a", "#ff0000", 0, float("nan")),)
    page = Page(render(facts(labels=none, unlabelled={"too far": 40}), [], seconds=1.0, request={}))
    assert "40 of 40 rows have no label. why rows of all too far 40 100 %" in page.text
    assert "Warnings 40 of 40 rows have no label: too far (40)." in page.text
    said = facts(labels=none, warnings=(), unlabelled={"too far": 40}).summary(3)
    assert said == "40 rows, 0 % with a label; no label: too far (40)"


@pytest.mark.parametrize(
    ("n", "of", "text"), [(0, 0, "0 %"), (1, 1000, "<1 %"), (1, 2, "50 %"), (999, 1000, ">99 %"), (3, 3, "100 %")]
)
def test_a_fraction_hides_no_row(n: int, of: int, text: str) -> None:
    assert percent(n, of) == text


def test_a_model_without_a_card_is_named_by_its_folder() -> None:
    from pathlib import Path

    from spatialwhisperer.cli.reporting import facts as module

    config = SimpleNamespace(card=None, modalities={})
    model: Any = SimpleNamespace(config=config, folder=Path("models/mine"))
    assert module._model(model)["name"] == "mine"
