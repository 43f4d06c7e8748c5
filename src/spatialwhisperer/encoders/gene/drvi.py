"""The encoder of DRVI, fitted by scvi-tools and used without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer.encoders.gene.scvi import SCVIEncoder
from spatialwhisperer.encoders.registry import register_encoder
from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    import torch


@register_encoder(
    EncoderSpec(
        "drvi",
        "gene",
        None,
        licence="BSD-3-Clause (no weights)",
        commercial=True,
        url="https://docs.scvi-tools.org",
        citation="Moinfar and Theis 2024, bioRxiv 2024.11.06.622266",
    ),
)
class DRVIEncoder(SCVIEncoder):
    """Posterior mean of DRVI's latent variables (Moinfar & Theis, bioRxiv 2024): scVI whose decoder adds up one part for each variable.

    Its encoder has layer norm and ELU where that of scVI has batch norm and ReLU. It needs scvi-tools 1.5 or later to be fitted, and none
    to be used. Otherwise it is like `SCVIEncoder`, with the same arguments of ``fit``.
    """

    drvi = True
    norm_parts = ()

    @staticmethod
    def _norm(width: int) -> torch.nn.Module:
        from torch import nn

        return nn.LayerNorm(width, elementwise_affine=False)

    @staticmethod
    def _activation() -> torch.nn.Module:
        from torch import nn

        return nn.ELU()
