"""The model as a whole: what it is, and that it comes back from its folder or not at all."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer.encoders.gene.pca import PCAEncoder
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.models import Label, ModelConfig, Ontology, Reference, Term, Vocabulary, Whisperer, store
from spatialwhisperer.models.configuration.annotation import Annotation
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig
from spatialwhisperer.models.reference import ReferenceConfig

PLAIN = {".json", ".safetensors", ".txt", ".md"}


def modality(name: str, dim: int, **values: Any) -> ModalityConfig:
    return ModalityConfig(FeatureRecipe(EncoderIdentity(name)), dim, HeadConfig("linear_norm", dim), **values)


def small(**modalities: ModalityConfig) -> Whisperer:
    torch.manual_seed(0)
    given = modalities or {"gene": modality("pca", 8), "text": modality("minilm", 6)}
    return Whisperer(ModelConfig(4, given, labels=("größer µm",)))


def rich() -> Whisperer:
    """A model with everything that one of random weights can have."""
    model = small()
    model.vocabulary = Vocabulary(
        {"fat": Label(("fat tissue",), "CL:0000136")},
        ["fat tissue", "fat cell"],
        np.random.default_rng(0).normal(size=(2, 6)),
        Ontology([Term("CL:0000136", "fat cell", ("adipocyte",))]),
    )
    model.reference = Reference(ReferenceConfig(mpp=(0.5, 3.2)), {"mean_gene": np.arange(4, dtype=np.float32)})
    counts = np.random.default_rng(0).poisson(2, (30, 8))
    encoder = PCAEncoder.fit(counts, [f"G{i}" for i in range(8)], n_latent=2, n_top_genes=None)
    model.encoders["gene"] = encoder
    model.config = model.config.with_modality("gene", features=FeatureRecipe(encoder.identity))
    return model


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    """A copy of the trained model's folder."""
    return Path(shutil.copytree(model.folder, tmp_path / "model"))


def same_state(a: Whisperer, b: Whisperer) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


# ------------------------------------------------------------------------------------------------- what it is


def test_labels_are_those_of_the_vocabulary_else_the_captions_of_training() -> None:
    model = small()
    assert model.vocabulary is None
    assert model.reference is None
    assert model.labels == ["größer µm"]
    assert model.prompts("T cell") == ["T cell"]
    model.vocabulary = rich().vocabulary
    assert model.labels == ["fat"]
    assert model.prompts("Fat ") == ["fat tissue"]
    assert model.prompts("bone") == ["bone"]


def test_it_says_what_it_is(model: Whisperer) -> None:
    assert repr(small()).splitlines()[0] == "Whisperer: gene + text in 4 dimensions"
    assert "trained sequential on 240 image–gene, 250 gene–text" in repr(model)


def test_only_values_that_no_weights_depend_on_are_changed() -> None:
    model = small()
    before = model.config
    model.update(annotation=Annotation("softmax", 0.5), labels=("a", "b"))
    assert model.config.annotation == Annotation("softmax", 0.5)
    assert model.labels == ["a", "b"]
    assert before.annotation is None
    for name in ("projection_dim", "modalities", "norm", "decoder_dim", "temperature"):
        with pytest.raises(TypeError, match=f"'{name}' cannot be changed: a model has weights that depend on it"):
            model.update(**{name: getattr(before, name)})
    with pytest.raises(
        TypeError, match="'annotations' cannot be .*no such value. Did you mean 'annotation'. It takes annot"
    ):
        model.update(annotations=None)
    assert model.labels == ["a", "b"]


# ------------------------------------------------------------------------------------------------- round trips


def test_a_model_comes_back_bit_for_bit(model: Whisperer, folder: Path, section: Any) -> None:
    opened = Whisperer.load(folder)
    assert same_state(model, opened)
    assert opened.config == model.config
    assert opened.labels == model.labels
    assert opened.folder == folder
    assert not opened.training
    assert opened.history.empty
    for name in ("image", "gene"):
        one, other = (sw.tl.embed(section, model=m, modality=name, inplace=False) for m in (model, opened))
        assert one is not None
        assert other is not None
        assert np.array_equal(one, other)
    again = opened.save(folder.parent / "again")
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(again)) for p in again.rglob("*") if p.is_file())
    assert all((folder / n).read_bytes() == (again / n).read_bytes() for n in names)


def test_opening_leaves_the_random_state(folder: Path) -> None:
    before = torch.get_rng_state()
    Whisperer.load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_part_comes_back(tmp_path: Path) -> None:
    model = rich()
    opened = Whisperer.load(model.save(tmp_path / "m"))
    assert same_state(model, opened)
    assert opened.config == model.config
    assert opened.labels == ["fat"]
    assert opened.prompts("Fat") == ["fat tissue"]
    assert opened.vocabulary.ontology.find("adipocytes") == "CL:0000136"  # type: ignore[union-attr]
    assert np.array_equal(opened.vocabulary.features, model.vocabulary.features)  # type: ignore[union-attr]
    assert opened.reference.config == model.reference.config  # type: ignore[union-attr]
    assert np.array_equal(opened.reference.arrays["mean_gene"], np.arange(4))  # type: ignore[union-attr]
    assert opened.encoders["gene"].identity == model.encoders["gene"].identity
    again = opened.save(tmp_path / "again")
    for path in (tmp_path / "m").rglob("*.*"):
        assert path.read_bytes() == (again / path.relative_to(tmp_path / "m")).read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_others_may_read_it_however_it_was_written(model: Any, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folders = [Whisperer.load(model.folder).save(tmp_path / "saved"), tmp_path / "hub", tmp_path / "genes"]
        model.save_pretrained(folders[1])
        model.encoders["gene"].save(folders[2])
    finally:
        os.umask(before)
    for one in folders:
        for path in [one, *one.rglob("*")]:
            assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_nothing_in_a_model_folder_can_run_code(model: Any) -> None:
    assert {p.suffix for p in model.folder.rglob("*") if p.is_file()} <= PLAIN
    config = json.loads((model.folder / "config.json").read_text(encoding="utf-8"))
    assert (config["format"], config["kind"]) == ("spatialwhisperer", "model")


def test_saving_over_a_model_replaces_it_and_its_parts(tmp_path: Path) -> None:
    rich().save(tmp_path / "m")
    second = small()
    second.log_scale.data += 1
    second.save(tmp_path / "m")
    opened = Whisperer.load(tmp_path / "m")
    assert same_state(opened, second)
    assert opened.vocabulary is None
    assert opened.labels == ["größer µm"]
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_saving_over_a_model_keeps_other_files_and_a_card_that_was_edited(tmp_path: Path) -> None:
    folder = rich().save(tmp_path / "m")
    (folder / ".git").mkdir()
    for name in (".git/HEAD", "notes.txt"):
        (folder / name).write_text("words")
    # a card that nobody touched is written anew
    small().save(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == str(small().generate_model_card())
    # also with the ends of lines of another system
    (folder / "README.md").write_bytes(card.replace("\n", "\r\n").encode())
    rich().save(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == str(rich().generate_model_card())
    (folder / "README.md").write_text(card.replace("# A model", "# The model"), encoding="utf-8")
    Whisperer.load(folder).save(folder)
    assert "# The model" in (folder / "README.md").read_text(encoding="utf-8")
    # nor one that somebody wrote
    (folder / "README.md").write_text("my words", encoding="utf-8")
    small().save(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == "my words"
    rich().save(folder)
    assert [(folder / name).read_text() for name in (".git/HEAD", "notes.txt")] == ["words", "words"]
    assert Whisperer.load(folder).vocabulary is not None


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("words")
    rich().encoders["gene"].save(tmp_path / "genes")  # type: ignore[attr-defined]
    for place in (tmp_path, tmp_path / "genes"):
        with pytest.raises(FileExistsError, match=r"is not a folder of this kind \(model\)"):
            small().save(place)
    assert (tmp_path / "thesis.txt").read_text() == "words"


# ------------------------------------------------------------------------------------------------- the hub


def test_hub_style_saving_and_opening(model: Whisperer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "hub")
    for opened in (Whisperer.from_pretrained(tmp_path / "hub"), Whisperer.from_pretrained(str(tmp_path / "hub"))):
        assert same_state(model, opened)
        assert opened.config == model.config
        assert opened.encoders["gene"].genes == model.encoders["gene"].genes  # type: ignore[attr-defined]


def test_hub_style_saving_needs_a_new_folder(tmp_path: Path) -> None:
    rich().save_pretrained(tmp_path / "hub")
    before = {p: p.read_bytes() for p in (tmp_path / "hub").rglob("*") if p.is_file()}
    assert {p.name for p in before} >= {"README.md"}
    message = r"holds config\.json, model\.safetensors, vocabulary, reference, gene_encoder already"
    with pytest.raises(FileExistsError, match=message):
        small().save_pretrained(tmp_path / "hub")
    assert before == {p: p.read_bytes() for p in (tmp_path / "hub").rglob("*") if p.is_file()}
    small().save(tmp_path / "hub")
    assert Whisperer.load(tmp_path / "hub").vocabulary is None


def test_hub_style_saving_writes_only_what_can_be_opened(tmp_path: Path) -> None:
    (tmp_path / "m" / "eval").mkdir(parents=True)
    (tmp_path / "m" / "eval" / "x.json").write_text("{}")
    small().save_pretrained(tmp_path / "m")
    assert same_state(Whisperer.load(tmp_path / "m"), small())
    for name in ("x.json", "x.pt"):
        (tmp_path / name[2:]).mkdir()
        (tmp_path / name[2:] / name).write_text("{}")
        with pytest.raises(FileExistsError, match=f"holds {name}, beside which a model could not be opened"):
            small().save_pretrained(tmp_path / name[2:])
        assert [p.name for p in (tmp_path / name[2:]).iterdir()] == [name]
    (tmp_path / "file").write_text("words")
    with pytest.raises(FileExistsError, match="file is a file. A model is a folder"):
        small().save_pretrained(tmp_path / "file")
    with pytest.raises(TypeError, match="licence: options of push_to_hub, which is off"):
        small().save_pretrained(tmp_path / "new", licence="mit")
    assert not (tmp_path / "new").exists()


def test_a_name_on_the_hub_is_fetched_and_opened(model: Whisperer, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def download(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(model.folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert same_state(Whisperer.load("owner/name", revision="abc"), model)
    assert (asked["repo"], asked["revision"]) == ("owner/name", "abc")


# ------------------------------------------------------------------------------------------------- refusals


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """No part of a model may be made from a folder that is refused."""

    def never(*_: Any, **__: Any) -> None:
        pytest.fail("something was built from a folder that must be refused")

    for kind in (Whisperer, Vocabulary, Reference, PCAEncoder):
        monkeypatch.setattr(kind, "__init__", never)
        monkeypatch.setattr(kind, "from_artifact", never)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rich model's files. Read only."""
    folder = rich().save(tmp_path_factory.mktemp("whole") / "m")
    assert Whisperer.load(folder).labels == ["fat"]
    return folder


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize("part", ["", "gene_encoder/", "vocabulary/", "reference/"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_nothing_is_built_of_a_folder_that_was_changed(whole: Path, tmp_path: Path, part: str, name: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "m"))
    content = (whole / part / name).read_bytes()
    middle = content.index(b"a", len(content) // 2) if name.endswith("json") else len(content) // 2
    for broken in (content[:-8], b"", content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]):
        (folder / part / name).write_bytes(broken)
        # of the outermost configuration the hub's own way reads JSON before we do
        outermost = (part, name) == ("", "config.json")
        for opens in (Whisperer.load,) if outermost else (Whisperer.load, Whisperer.from_pretrained):
            with pytest.raises(ValueError, match=rf"{name} is not .*save what it holds again"):
                opens(folder)
    (folder / part / name).unlink()
    with pytest.raises(
        (ValueError, FileNotFoundError), match=f"lacks {'' if name[0] == 'm' else part}{name}|holds no m"
    ):
        Whisperer.load(folder)


@pytest.mark.usefixtures("nothing_built")
def test_nothing_is_built_of_a_folder_with_a_pickle_or_a_part_that_is_not_listed(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "m"))
    (folder / "gene_encoder" / "x.PKL").write_bytes(b"\x80\x04N.")
    with pytest.raises(ValueError, match="can run code when opened"):
        Whisperer.load(folder)
    (folder / "gene_encoder" / "x.PKL").unlink()
    shutil.copytree(folder / "vocabulary", folder / "expression")
    with pytest.raises(ValueError, match="holds expression, which its configuration does not list"):
        Whisperer.load(folder)


def test_weights_of_another_model_are_refused() -> None:
    artifact = small().artifact()
    for tensors in (
        {k: v for k, v in artifact.tensors.items() if k != "log_scale"},
        {**artifact.tensors, "log_scale": np.zeros(2)},
    ):
        with pytest.raises(ValueError, match="weights of this model do not fit its configuration: check log_scale"):
            Whisperer.from_artifact(replace(artifact, tensors=tensors))


def test_a_part_of_another_kind_or_version_is_refused() -> None:
    artifact = rich().artifact()
    for name in ("vocabulary", "reference"):
        wrong = replace(artifact.parts[name], config={})
        if name == "reference":
            wrong = replace(artifact.parts[name], config={"more": 1})
        with pytest.raises(ValueError, match=f"The configuration of a {name} does not fit"):
            Whisperer.from_artifact(replace(artifact, parts={**artifact.parts, name: wrong}))
    with pytest.raises(ValueError, match="The configuration of a model does not fit this version of the package"):
        Whisperer.from_artifact(replace(artifact, config={**artifact.config, "heads": {}}))


def test_no_such_folder(tmp_path: Path) -> None:
    for source in (tmp_path / "nothing", "nothing", "./a/b"):
        with pytest.raises(FileNotFoundError, match="There is no folder"):
            Whisperer.load(source)
    with pytest.raises(FileNotFoundError, match="holds no model"):
        Whisperer.load(tmp_path)


def test_the_package_opens_its_own_model() -> None:
    assert Whisperer.load(store.EMBEDDED).config.card.name == "her2st-mini"  # type: ignore[union-attr]


def test_features_from_elsewhere_take_no_encoder() -> None:
    image = ModalityConfig(FeatureRecipe(None, "X_mine"), 4, HeadConfig("linear_norm", 4))
    artifact = small(image=image).artifact()
    with pytest.raises(ValueError, match=r"were computed elsewhere \(.obsm\['X_mine'\]\); it takes no encoder"):
        Whisperer.from_artifact(artifact, encoders={"image": torch.nn.Flatten()})


def test_a_fitted_gene_encoder_travels_and_may_be_passed_from_a_folder(tmp_path: Path) -> None:
    model = rich()
    assert "gene_encoder" in model.artifact().parts
    model.encoders["gene"].save(tmp_path / "genes")  # type: ignore[attr-defined]
    opened = Whisperer.from_artifact(model.artifact(), encoders={"gene": tmp_path / "genes"})
    assert opened.encoders["gene"].identity == model.encoders["gene"].identity


def test_an_encoder_whose_name_is_enough_is_not_stored() -> None:
    model = small(image=modality("stain_texture", 158), text=modality("minilm", 384))
    model.encoders["image"] = sw.models.open_encoder("stain_texture", "image")
    assert dict(model.artifact().parts) == {}
    assert isinstance(model.artifact(), Artifact)
