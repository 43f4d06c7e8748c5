"""Each published method is one configuration of the same parts; nothing here computes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._frozen import FrozenMapping, frozen
from spatialwhisperer.encoders.catalogue import get_spec
from spatialwhisperer.models.configuration.parts import Context, Expression, PairLoss, Preset
from spatialwhisperer.models.presets.peer import PEER, as_published_code
from spatialwhisperer.models.presets.recipe import Recipe
from spatialwhisperer.retrieval.rule import Retrieval

if TYPE_CHECKING:
    import pandas as pd

PROTOCOLS = ("strict", "peer")

_IMAGE_GENE = FrozenMapping({("image", "gene"): 1.0})
_JOINT = Recipe(
    heads=frozen(gene="bn_shortcut", text="bn_shortcut", image="bn_shortcut"),
    projection_dim=512,
    learning_rate=1e-3,
    tower_learning_rate=1e-5,
    weight_decay=0.0,
    betas=(0.9, 0.98),
    warmup=0.03,
    final_learning_rate=0.05,
    batch_size=512,
    max_epochs=4,
    min_steps=300,
)
_SEQUENTIAL = Recipe(
    heads=frozen(gene="linear_norm", text="bn_shortcut", image="bn_shortcut"),
    projection_dim=64,
    learning_rate=2e-3,
    tower_learning_rate=1e-5,
    weight_decay=0.05,
    betas=(0.9, 0.999),
    warmup=0.1,
    final_learning_rate=0.0,
    batch_size=512,
    max_epochs=4,
    min_steps=300,
    dropout=frozen(gene=0.1),
    text_loss="sigmoid",
)
_RESIDUAL = Recipe(
    heads=frozen(gene="rmlp", text="rmlp", image="rmlp"),
    projection_dim=256,
    learning_rate=1e-3,
    tower_learning_rate=1e-3,
    weight_decay=1e-3,
    betas=(0.9, 0.999),
    warmup=0.0,
    final_learning_rate=1.0,
    batch_size=128,
    max_epochs=30,
    min_steps=400,
    dropout=frozen(gene=0.1, text=0.1, image=0.1),
    schedule="constant",
    learn_temperature=False,
)
"""BLEEP and the methods that build on it: residual perceptrons, AdamW, a constant learning rate and temperature."""

_WITHIN_SECTIONS = frozen(image="section", gene="none", text="none")
_SOFT = PairLoss(alpha=0.5, beta=0.5, targets="soft", negatives_scope="device")
_IMAGE_CENTRIC = PairLoss(lam=1.0, alpha=1.0, targets="soft", negatives_scope="device")

_BLEEP = Preset(
    name="bleep",
    paper="Xie et al., Spatially Resolved Gene Expression Prediction from Histology Images, NeurIPS 2023",
    pairs=_IMAGE_GENE,
    locking="LLL",
    temperature=1.0,
    standardize=_WITHIN_SECTIONS,
    joint=_RESIDUAL,
    gene_encoder="identity",
    published_image_encoder="resnet50",
    norm="none",
    loss=_SOFT,
    expression=Expression(retrieval=Retrieval(k=50)),
)
_HECLIP = replace(
    _BLEEP,
    name="heclip-heg",
    paper="Wang et al., HECLIP: Histology-Enhanced Contrastive Learning, Bioinformatics 2025 (btaf363)",
    joint=replace(_RESIDUAL, max_epochs=15),
    loss=_IMAGE_CENTRIC,
    expression=Expression(genes="mean", n_genes=3200, retrieval=Retrieval(key="image", k=50)),
)
_MCLSTEXP = replace(
    _BLEEP,
    name="mclstexp",
    paper="Min, Shi et al., Multimodal Contrastive Learning for Spatial Gene Expression Prediction, Brief. Bioinform. 2024",
    joint=replace(_RESIDUAL, learning_rate=1e-4, tower_learning_rate=1e-4, max_epochs=90, dropout=frozen()),
    published_image_encoder="densenet121",
    loss=PairLoss(),
    context=Context("section_knn", ("gene",), frozen(n_neighbours=8)),
    expression=Expression(input_space="per_spot_log10", retrieval=Retrieval(k=200, weights="inv_sq_l2")),
)
_TPIRBAE = replace(
    _BLEEP,
    paper="Nishimura, Bise, Kojima, ISBI 2025 (arXiv 2503.07173); what the paper leaves open is our reconstruction",
    standardize=frozen(image="section", gene="global", text="none"),
    gene_options=frozen(n_latent=10),
)
_CLIP: dict[str, Any] = {
    "norm": "l2",
    "temperature": 0.07,
    "loss": PairLoss(),
    "joint": replace(_RESIDUAL, learn_temperature=True),
}
_OMICLIP = replace(
    _BLEEP,
    name="omiclip-predex",
    paper="Chen et al., OmiCLIP and Loki, Nat Methods 2025 (s41592-025-02707-1)",
    standardize=frozen(image="section", gene="global", text="none"),
    joint=replace(
        _RESIDUAL,
        heads=frozen(gene="linear_norm", text="linear_norm", image="linear_norm"),
        weight_decay=0.1,
        batch_size=64,
        dropout=frozen(gene=0.1, text=0.1, image=0.1),
        learn_temperature=True,
    ),
    gene_encoder="gene_sentence",
    gene_options=frozen(n_top_genes=None),
    published_image_encoder="CoCa ViT-L/14",
    norm="l2",
    temperature=0.07,
    loss=PairLoss(),
    # the published quotient of raw cosines leaves the range of the data where cosines are negative
    expression=Expression(retrieval=Retrieval(k=None, weights="clipped_cosine")),
)
_SPATIALWHISPERER = Preset(
    name="spatialwhisperer",
    paper="Schaefer et al., Transitive Representation Learning Enhances Histopathology Annotation, ICML 2026",
    pairs=FrozenMapping({("image", "gene"): 1.0, ("gene", "text"): 1.0}),
    locking="LLL",
    temperature=0.07,
    standardize=frozen(image="section", gene="global", text="none"),
    joint=_JOINT,
    sequential=_SEQUENTIAL,
    published_image_encoder="UNI2-h",
    expression=Expression(retrieval=Retrieval(k=50), by_default=False),
)
_WHISPERER = replace(
    _SPATIALWHISPERER,
    name="whisperer",
    paper="ours: several tile sizes, reduced-rank regression and retrieval, weighed on held-out training tissue",
    standardize=frozen(image="auto", gene="global", text="none"),
    gene_encoder="auto",
    joint=replace(
        _RESIDUAL,
        heads=frozen(gene="linear_norm", text="bn_shortcut", image="linear_norm"),
        projection_dim=64,
        weight_decay=0.05,
        dropout=frozen(gene=0.1, image=0.5),
        learn_temperature=True,
    ),
    sequential=replace(_SEQUENTIAL, closed_form=True, refine="auto"),
    published_image_encoder="",
    tile_um=(100.0, 154.0, 300.0, 600.0),
    expression=Expression(
        retrieval=Retrieval(k=50, weights="softmax"), image=("stain_texture", "nuclei"), method="both", by_default=False
    ),
)

PRESETS: dict[str, Preset] = {
    p.name: p
    for p in (
        _WHISPERER,
        _SPATIALWHISPERER,
        _MCLSTEXP,
        replace(_TPIRBAE, name="tpirbae-scvi-clip", gene_encoder="scvi", **_CLIP),
        replace(_TPIRBAE, name="tpirbae-scvi-soft", gene_encoder="scvi"),
        replace(_TPIRBAE, name="tpirbae-scanvi-clip", gene_encoder="scanvi", **_CLIP),
        replace(_TPIRBAE, name="tpirbae-scanvi-soft", gene_encoder="scanvi"),
        replace(
            _HECLIP,
            name="heclip-hvg",
            joint=replace(_HECLIP.joint, heads=frozen(gene="none", text="rmlp", image="rmlp"), projection_dim=None),
            expression=Expression(retrieval=Retrieval(key="image", k=50)),
        ),
        _HECLIP,
        _BLEEP,
        _OMICLIP,
    )
}
"""As the papers describe the methods; errors of the published code are corrected."""


@checked
def get_preset(preset: str | Preset, protocol: str = "strict") -> Preset:
    """Return a preset by name, or the preset itself.

    Parameters
    ----------
    preset
        Name, or a preset, which is returned as it is.
    protocol
        "strict", or "peer", which follows the published code wherever that changes results, even where the test section leaks into
        training.

    Raises
    ------
    ValueError
        If the name or the protocol is unknown.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.get_preset("mclstexp").context.kind, sw.models.get_preset("mclstexp", "peer").context.kind
    ('section_knn', 'batch_peer')
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {protocol!r}; choose 'strict' or 'peer'.")
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"Unknown preset {preset!r}; choose one of {', '.join(PRESETS)}.")
    chosen = PRESETS[preset]
    return as_published_code(chosen) if protocol == "peer" else chosen


def presets() -> pd.DataFrame:
    """List the presets.

    Returns
    -------
    DataFrame with one row per preset: the paper, the parts, the image encoder of the paper, the default encoders and their
    licences, and which attributes ``protocol="peer"`` changes.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.presets().loc["bleep", "retrieval"]
    'image → gene, k = 50, uniform'
    """
    import pandas as pd

    return pd.DataFrame.from_dict({p.name: _describe(p) for p in PRESETS.values()}, orient="index")


def _describe(preset: Preset) -> dict[str, str]:
    retrieval = preset.expression.retrieval if preset.expression else Retrieval()
    encoders = (preset.image_encoder, *(("scvi", "pca") if preset.gene_encoder == "auto" else (preset.gene_encoder,)))
    context = preset.context
    return {
        "paper": preset.paper,
        "pairs": ", ".join("–".join(pair) for pair in preset.pairs),
        "published_image_encoder": preset.published_image_encoder,
        "default_encoders": ", ".join(encoders),
        "licence": "; ".join(f"{e}: {get_spec(e).licence}" for e in encoders),
        "locking": preset.locking,
        "context": context.kind + (f" ({', '.join(context.modalities)})" if context.modalities else ""),
        "heads": ", ".join(f"{m} {h}" for m, h in preset.joint.heads.items() if any(m in p for p in preset.pairs)),
        "norm": preset.norm,
        "temperature": f"{preset.temperature:g}" + (", learned" if preset.joint.learn_temperature else ", fixed"),
        "loss": f"λ {preset.loss.lam:g}, {_targets(preset.loss)}",
        "retrieval": f"{retrieval.query} → {retrieval.key}, k = {retrieval.k or 'all'}, {retrieval.weights}",
        "peer_changes": ", ".join(PEER.get(preset.name, {})),
    }


def _targets(loss: PairLoss) -> str:
    return f"soft targets (α {loss.alpha:g}, β {loss.beta:g})" if loss.targets == "soft" else "identity targets"
