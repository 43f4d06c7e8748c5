"""What is known of each encoder before it is loaded: dimensions, resolution, normalisation, licence."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from spatialwhisperer._messages import found

if TYPE_CHECKING:
    import pandas as pd

MODALITIES = ("image", "gene", "text")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EncoderSpec:
    """Facts about one encoder, shown before anything is downloaded.

    Attributes
    ----------
    name
        Name by which the encoder is asked for; it also names the slot of its features.
    modality
        ``"image"``, ``"gene"`` or ``"text"``.
    dim
        Length of a feature row; ``None`` where it is known only once the encoder is built.
    input_px
        Tile edge that the encoder takes, in pixels; ``None`` takes any.
    mpp
        Microns per pixel that the encoder was trained at.
    tile_um
        Default field of view, in microns.
    mean, std
        Normalisation of R, G, B in [0, 1].
    licence
        Licence of the weights.
    commercial
        Whether that licence allows commercial use; ``None`` where it is not known.
    gated
        Whether the weights are handed out on request only.
    url
        Where the encoder comes from.
    citation
        Paper to cite.

    Examples
    --------
    >>> from spatialwhisperer.models import EncoderSpec
    >>> EncoderSpec("mine", "image", 128, input_px=224).licence
    'unknown'
    """

    name: str
    modality: str
    dim: int | None
    input_px: int | None = None
    mpp: float | None = None
    tile_um: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    licence: str = "unknown"
    commercial: bool | None = None
    gated: bool = False
    url: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        if self.modality not in MODALITIES:
            raise ValueError(f"modality must be one of {', '.join(MODALITIES)}, not {self.modality!r}.")
        if not self.name:
            raise ValueError("An encoder needs a name.")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"Encoder {self.name!r} gives one of mean and std; give both, or neither.")


_ENCODERS: dict[tuple[str, str], EncoderSpec] = {}


def register_encoder(spec: EncoderSpec, *, overwrite: bool = False) -> None:
    """Make an encoder known by its name.

    Parameters
    ----------
    spec
        The facts about the encoder.
    overwrite
        Replace an entry of the same name and modality.

    Raises
    ------
    TypeError
        `spec` is not an `EncoderSpec`.
    ValueError
        The name is taken and `overwrite` is off.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> spec = sw.models.EncoderSpec("my_cnn", "image", 64, input_px=96)
    >>> sw.models.register_encoder(spec, overwrite=True)
    >>> sw.models.get_spec("my_cnn").dim
    64
    """
    if not isinstance(spec, EncoderSpec):
        raise TypeError(f"register_encoder takes an EncoderSpec, not {type(spec).__name__}.")
    key = (spec.modality, spec.name)
    if key in _ENCODERS and not overwrite:
        raise ValueError(
            f"{spec.modality} encoder {spec.name!r} is registered already; pass overwrite=True to replace it."
        )
    _ENCODERS[key] = spec


def get_spec(name: str, modality: str | None = None) -> EncoderSpec:
    """Facts about an encoder, from the registry or, for any other timm model id, from timm.

    Parameters
    ----------
    name
        Registered name, timm model id (``"resnet18"``, ``"resnet18.a1_in1k"``) or ``"hf-hub:owner/model"``.
    modality
        Look among the encoders of this modality only; ``None`` looks among all.

    Returns
    -------
    The entry. For an ``hf-hub:`` name, whose facts lie on the hub, only the name and the address are filled.

    Raises
    ------
    ValueError
        No encoder of that name; the message lists the closest ones.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.get_spec("stain_texture").tile_um
    154.0
    """
    _check_modality(modality)
    hits = [s for (m, n), s in _ENCODERS.items() if n == name and modality in (None, m)]
    if hits:
        return hits[0]
    if modality in (None, "image"):
        spec = _timm_spec(name)
        if spec is not None:
            return spec
    raise ValueError(_unknown(name, modality))


def list_encoders(modality: str | None = None) -> pd.DataFrame:
    """Table of the registered encoders.

    Parameters
    ----------
    modality
        Only encoders of this modality; ``None`` lists all.

    Returns
    -------
    One row per encoder, indexed by name, with the attributes of `EncoderSpec` as columns. Any timm model id works as an
    image encoder too without being listed.

    Raises
    ------
    ValueError
        There is no such modality.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> bool(sw.models.list_encoders("image").loc["uni2-h", "gated"])
    True
    """
    import pandas as pd

    _check_modality(modality)
    rows = [dataclasses.asdict(s) for s in _ENCODERS.values() if modality in (None, s.modality)]
    columns = [f.name for f in dataclasses.fields(EncoderSpec)]
    table = pd.DataFrame(rows, columns=columns).set_index("name")
    return table.astype({"dim": "Int64", "input_px": "Int64", "commercial": "boolean"})


def _check_modality(modality: str | None) -> None:
    if modality is not None and modality not in MODALITIES:
        raise ValueError(f"modality must be one of {', '.join(MODALITIES)} or None, not {modality!r}.")


def _timm_spec(name: str) -> EncoderSpec | None:
    """Facts that timm has about a model id, without building or downloading it; None where timm does not know it."""
    if name.startswith("hf-hub:"):
        return EncoderSpec(name, "image", None, url="https://huggingface.co/" + name.removeprefix("hf-hub:"))
    from spatialwhisperer._messages import import_torch_stack

    timm = import_torch_stack("timm")
    if not timm.is_model(name):
        return None
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if config is None or not config.input_size:
        return EncoderSpec(name, "image", None)
    licence = config.license or "unknown"
    return EncoderSpec(
        name,
        "image",
        None,
        input_px=config.input_size[-1],
        mean=tuple(config.mean),
        std=tuple(config.std),
        licence=licence,
        commercial={"apache-2.0": True, "mit": True, "bsd-3-clause": True}.get(
            licence, False if "-nc" in licence else None
        ),
        url="https://huggingface.co/" + config.hf_hub_id if config.hf_hub_id else "",
    )


def _unknown(name: str, modality: str | None) -> str:
    known = [n for m, n in _ENCODERS if modality in (None, m)]
    candidates = list(known)
    if modality in (None, "image"):
        from spatialwhisperer._messages import import_torch_stack

        candidates += import_torch_stack("timm").list_models()
    close = get_close_matches(name, dict.fromkeys(candidates), n=4, cutoff=0.5)
    hint = f"Did you mean {found(close)}? " if close else ""
    kind = f"{modality} encoder" if modality else "encoder"
    extra = " and any timm model id" if modality in (None, "image") else ""
    return f"There is no {kind} {name!r}. {hint}Registered: {found(known)}{extra}; see sw.models.list_encoders()."


def _timm_entry(
    name: str, dim: int, citation: str, *, mean: tuple = IMAGENET_MEAN, std: tuple = IMAGENET_STD
) -> EncoderSpec:
    """Build the entry of an ungated ImageNet model of timm; the values are those of timm's own configuration."""
    return EncoderSpec(
        name,
        "image",
        dim,
        input_px=224,
        mean=mean,
        std=std,
        licence="apache-2.0",
        commercial=True,
        url="https://github.com/huggingface/pytorch-image-models",
        citation=citation,
    )


_HALF = (0.5, 0.5, 0.5)

for _spec in (
    EncoderSpec(
        "stain_texture",
        "image",
        158,
        tile_um=154.0,
        licence="BSD-3-Clause (no weights)",
        commercial=True,
        citation="Ruifrok & Johnston 2001, Anal Quant Cytol Histol 23:291; Haralick et al. 1973, IEEE SMC 3:610; "
        "Ojala et al. 2002, IEEE TPAMI 24:971",
    ),
    _timm_entry("resnet18", 512, "He et al. 2016, CVPR"),
    _timm_entry("resnet50", 2048, "He et al. 2016, CVPR"),
    _timm_entry("densenet121", 1024, "Huang et al. 2017, CVPR"),
    _timm_entry("vit_small_patch16_224", 384, "Dosovitskiy et al. 2021, ICLR", mean=_HALF, std=_HALF),
    _timm_entry("vit_small_patch16_224.dino", 384, "Caron et al. 2021, ICCV"),
    EncoderSpec(
        "uni2-h",
        "image",
        1536,
        input_px=224,
        mpp=0.5,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        licence="CC-BY-NC-ND-4.0",
        commercial=False,
        gated=True,
        url="https://huggingface.co/MahmoodLab/UNI2-h",
        citation="Chen et al. 2024, Nat Med 30:850",
    ),
    EncoderSpec(
        "h-optimus-0",
        "image",
        1536,
        input_px=224,
        mpp=0.5,
        mean=(0.707223, 0.578729, 0.703617),
        std=(0.211883, 0.230117, 0.177517),
        licence="apache-2.0",
        commercial=True,
        url="https://huggingface.co/bioptimus/H-optimus-0",
        citation="Saillard et al. 2024, H-optimus-0",
    ),
    EncoderSpec("pca", "gene", None, licence="BSD-3-Clause (no weights)", commercial=True),
    EncoderSpec("identity", "gene", None, licence="BSD-3-Clause (no weights)", commercial=True),
    EncoderSpec("set_transformer", "gene", None, licence="BSD-3-Clause (no weights)", commercial=True),
    EncoderSpec(
        "gene_sentence",
        "gene",
        None,
        licence="that of its text encoder (minilm: apache-2.0)",
        citation="Chen et al. 2025, Nat Methods, s41592-025-02707-1",
    ),
    EncoderSpec(
        "scvi",
        "gene",
        None,
        licence="BSD-3-Clause (no weights)",
        commercial=True,
        url="https://docs.scvi-tools.org",
        citation="Lopez et al. 2018, Nat Methods 15:1053",
    ),
    EncoderSpec(
        "scanvi",
        "gene",
        None,
        licence="BSD-3-Clause (no weights)",
        commercial=True,
        url="https://docs.scvi-tools.org",
        citation="Xu et al. 2021, Mol Syst Biol 17:e9620",
    ),
    EncoderSpec(
        "minilm",
        "text",
        384,
        licence="apache-2.0",
        commercial=True,
        url="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
        citation="Reimers & Gurevych 2019, EMNLP",
    ),
    EncoderSpec(
        "biobert",
        "text",
        768,
        url="https://huggingface.co/dmis-lab/biobert-v1.1",
        citation="Lee et al. 2020, Bioinformatics 36:1234",
    ),
):
    register_encoder(_spec)
del _spec
