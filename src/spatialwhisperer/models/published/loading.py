"""Opening any model: the embedded one, one in a folder or on the hub, the published checkpoint, or one of images and texts."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import listing
from spatialwhisperer._modalities import get_modality
from spatialwhisperer._settings import settings
from spatialwhisperer._storage.files import whole_file
from spatialwhisperer._storage.folders import present
from spatialwhisperer._storage.torch_files import TorchFile
from spatialwhisperer.encoders.hub import hub_answers
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.encoders.text.bert import tokenizer_files
from spatialwhisperer.models.published.conversion import Source, convert, extract_image_tower
from spatialwhisperer.models.published.image_text import IMAGE_ONLY, image_text_model
from spatialwhisperer.models.published.layout import PACKAGES, find_layout
from spatialwhisperer.models.published.names import FILE, PUBLISHED, TEXT, image_text_names
from spatialwhisperer.models.sharing.hub import check_options, refuse_revision
from spatialwhisperer.models.whisperer import Whisperer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from spatialwhisperer.models.opening import Given

_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")


@checked
def load(
    source: str | Path,
    *,
    features: Mapping[str, str] | None = None,
    tokenizer: str | Path | None = None,
    native_pixels: bool = False,
    encoders: Mapping[str, Given] | None = None,
    allow_encoders: Collection[str | Path] = (),
    **hub: Any,
) -> Whisperer:
    """Open any model: the embedded one, one of this package, the published SpatialWhisperer, or one of images and texts.

    :func:`list_models` lists those that open by name.

    The published checkpoint (Schaefer et al., ICML 2026) is a file that PyTorch unpickles, which would run whatever code it holds. It
    is read here without that: numbers, text and tensors are taken from it, and nothing else is built. It is converted once, to a folder in
    ``settings.cache_dir`` that later calls open. Its weights are CC-BY-NC-4.0, for non-commercial use.

    It holds three heads, the temperature, and the text tower (BioBERT with its pooler output). Image features are those of UNI2-h, which
    is gated, and gene features those of Geneformer; both are opened by their names when they are first needed. Where an object holds
    such features already, ``features`` names their keys, and neither is needed.

    Parameters
    ----------
    source
        Folder of a model, ``"owner/name"`` on the hub, ``"her2st-mini"``, ``"Good-Lab/spatialwhisperer"``, a ``.ckpt`` file of the
        published code, or a model of images and texts such as ``"keep"`` (see :func:`image_text_model`).
    features
        Key in ``.obsm`` of features to read as they are, by modality: ``{"image": "X_uni2", "gene": "X_geneformer"}``. They must be those
        of the encoder that the model was trained with: UNI2-h (n, 1536) and Geneformer (n, 512) for the published model.
    tokenizer
        Folder with the tokenizer of BioBERT, or its ``vocab.txt``, for the published checkpoint; ``None`` takes it from the hub.
    native_pixels
        Whether image features are computed from 224 × 224 pixels of the image as it is, whatever their size, as in the published code.
        Otherwise tiles are 112 µm wide (0.5 µm per pixel) in every image. Rows whose tile leaves the image are NaN either way; the
        published code embeds them as a uniform colour.
    encoders, allow_encoders
        See :meth:`Whisperer.load`.
    **hub
        For the hub: ``revision`` (branch, tag or commit), ``token``, ``cache_dir``, ``local_files_only``, and
        ``force_download=True``, which downloads a model again whose file in the cache is damaged.

    Returns
    -------
    The model, in evaluation mode.

    Raises
    ------
    FileNotFoundError
        If there is no such model, or files are missing and cannot be downloaded.
    TypeError
        If ``features`` names something else than keys, or another option is given for the hub.
    KeyError
        If ``features`` names a modality that the model does not have.
    ValueError
        If a file is cut off, changed, asks for code, or is another model's; if tensors are missing or of another shape; if the tokenizer
        has another vocabulary; if the file on the hub is not the one that was opened first and no ``revision`` says which is meant; or
        if ``revision`` is given for a model that is on this machine. Nothing is written then.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.load("her2st-mini").modalities
    ('gene', 'image', 'text')
    """
    check_options(hub)
    checkpoint = find_checkpoint(source, **hub)
    if checkpoint is None:
        if tokenizer is not None:
            raise ValueError(f"tokenizer is for the published checkpoint; {source!r} is a model that holds its own.")
        if str(source) in (*image_text_names(), *IMAGE_ONLY) and not os.path.exists(source):
            if encoders or allow_encoders or hub:
                raise ValueError(
                    f"{source!r} is a published model of images and texts, whose encoders are known. Files of your own: "
                    f"sw.models.image_text_model({source!r}, weights='folder')."
                )
            model = image_text_model(str(source))
        else:
            model = Whisperer.load(source, encoders=encoders, allow_encoders=allow_encoders, **hub)
    else:
        folder = converted(checkpoint, tokenizer)
        if str(source) in PUBLISHED and hub.get("revision") is None:
            _remember(checkpoint)
        model = Whisperer.load(folder, encoders=encoders, allow_encoders=allow_encoders)
    for modality, key in (features or {}).items():
        _read_as_given(model, modality, key)
    if native_pixels:
        _read_native(model)
    return model


def find_checkpoint(source: str | Path, **hub: Any) -> Source | None:
    """Find a checkpoint of the published code, and download it where it is on the hub; ``None`` for models of this package."""
    path = Path(source).expanduser()
    # os.path answers for names that no file system takes too
    if os.path.isfile(path) or (path.suffix in _SUFFIXES and not os.path.isdir(path)):
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no file {path} to open a model from.")
        if path.suffix == ".safetensors":
            raise ValueError(
                f"{path} holds weights without a configuration. Open the folder of the model: sw.models.load({str(path.parent)!r})"
            )
        refuse_revision(source, hub)
        return Source.of(path, path.name)
    if str(source) not in PUBLISHED or present(path, "config.json") is not None:
        return None
    found = Source.of(_download(str(source), **hub), str(source))
    if hub.get("revision") is None:
        _check_unmoved(found)
    return found


def converted(checkpoint: Source, tokenizer: str | Path | None) -> Path:
    """Folder of the model of a checkpoint, converted where that was not done before."""
    place = settings.cache_dir / "published"
    name = f"spatialwhisperer-{checkpoint.sha256[:16]}"
    if tokenizer is None:
        # one that was converted with a given tokenizer will do
        for folder in (place / name, *sorted(place.glob(f"{name}-*"))):
            if (done := _done(folder)) is not None:
                return done
    with TorchFile(checkpoint.path, PACKAGES) as file:
        layout = find_layout(file.values, checkpoint.path)
        files = tokenizer_files(tokenizer, TEXT) if layout.text else None
        if tokenizer is not None and files is not None:
            sha = hashlib.sha256(b"".join(part.encode() + content for part, content in sorted(files.items())))
            name = f"{name}-{sha.hexdigest()[:8]}"
        folder = _done(place / name) or convert(checkpoint, file, layout, files, place / name)
        extract_image_tower(checkpoint, file, layout, place / f"uni2-h-{checkpoint.sha256[:16]}")
    return folder


def _done(folder: Path) -> Path | None:
    return folder if present(folder, "config.json") is not None else None


def _read_as_given(model: Whisperer, modality: str, key: str) -> None:
    """Let a model read features of a modality as they are."""
    config = model.config.modality(modality)
    if config.trained or get_modality(modality).reads == "captions":
        frozen = [name for name in model.modalities if name not in (*model.towers, "text")]
        raise ValueError(
            f"features={{{modality!r}: …}}: the {modality} encoder is part of the model, or reads texts. Keys are for {listing(frozen)}."
        )
    if not isinstance(key, str) or not key:
        raise TypeError(f"features[{modality!r}] must be the name of a key in .obsm, not {key!r}.")
    model.config = model.config.with_modality(modality, features=FeatureRecipe(None, key))


def _read_native(model: Whisperer) -> None:
    """Let a model read tiles of pixels as they are."""
    image = model.config.modalities.get("image")
    if image is None or image.trained or image.features.encoder is None or len(image.features.tile_um) != 1:
        raise ValueError(
            "native_pixels is for models that compute image features of tiles of one size with a frozen encoder; this one reads "
            f"{'no images' if image is None else image.features.name}."
        )
    features = replace(image.features, native_px=True)
    model.config = model.config.with_modality("image", features=features)


def _download(repository: str, **hub: Any) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    keep = ("revision", "cache_dir", "force_download", "token")
    options = {k: hub[k] for k in keep if hub.get(k) is not None}
    offline = hub.get("local_files_only", settings.offline)
    otherwise = (
        f"Fetch it on another machine (hf download {repository} {FILE}) and open the file: sw.models.load('…/{FILE}')."
    )
    try:
        if offline or not hub_answers():
            return Path(hf_hub_download(repository, FILE, local_files_only=True, **options))
        return Path(hf_hub_download(repository, FILE, **options))
    except GatedRepoError as error:
        raise FileNotFoundError(
            f"{repository} is gated. Accept its terms at https://huggingface.co/{repository}, and set the variable HF_TOKEN to a token of "
            "yours (or log in with `hf auth login`)."
        ) from error
    except LocalEntryNotFoundError as error:
        why = "settings.offline is set" if offline else "the hub cannot be reached"
        raise FileNotFoundError(
            f"{FILE} of {repository} is not in the Hugging Face cache, and {why}. {otherwise}"
        ) from error
    # a connection that breaks raises errors of whichever HTTP library the client has, which share no class
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise FileNotFoundError(f"The hub did not give {FILE} of {repository} ({said}). {otherwise}") from error


def _check_unmoved(found: Source) -> None:
    """Compare a file of the hub with the one that was opened first under its name on this machine."""
    record = _record_of(found)
    before = _first_opened(record)
    if before not in (None, found.sha256):
        raise ValueError(
            f"{FILE} of {found.name} is another file than the one that was opened first here (sha256 {found.sha256[:12]}…, before "
            f"{str(before)[:12]}…): its revision has moved, or the copy in the cache is damaged. Fetch it again with force_download=True; if it "
            f"is still another one, say which is meant with revision='…', or remove {record} to take the new one."
        )


def _remember(opened: Source) -> None:
    """Remember a file of the hub that was opened, where none was before: one that was refused is not the first."""
    record = _record_of(opened)
    if _first_opened(record) is None:
        record.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(record) as path:
            path.write_text(json.dumps({"sha256": opened.sha256}), encoding="utf-8")


def _record_of(source: Source) -> Path:
    return settings.cache_dir / "published" / f"{source.name.replace('/', '--')}.json"


def _first_opened(record: Path) -> str | None:
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
