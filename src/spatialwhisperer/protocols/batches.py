"""How far gene encoders bring patients together: one annotated section of each of eight patients.

It tests the premise of TPIRBAE: expression separates patients more than tissues, and scVI or scANVI correct that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import scipy.sparse as sp

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols.output import markdown, write_text

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from matplotlib.figure import Figure

SECTIONS = ("A1", "B1", "C1", "D1", "E1", "F1", "G2", "H1")
LABELS = "pathologist_label"
DIMENSIONS, EPOCHS = 10, 40


def run(data: Path, out: Path, *, smoke: bool = False) -> pd.DataFrame:
    """Measure log expression, scVI and scANVI, and write ``batches.csv``, ``batches.md`` and ``batches.png``.

    Parameters
    ----------
    data
        Folder of the data.
    out
        Folder of the results.
    smoke
        Use three sections and two epochs, to show that everything runs.
    """
    names = SECTIONS[1:4] if smoke else SECTIONS
    tables = [sw.datasets.her2st(n, data_dir=data, with_image=False)["table"] for n in names]
    _components(tables)
    for kind in ("scvi", "scanvi"):
        inform(f"{kind}: {sum(t.n_obs for t in tables)} spots, {2 if smoke else EPOCHS} epochs")
        encoder = sw.pp.fit_gene_encoder(
            tables,
            kind,
            batch_key="patient",
            labels_key=LABELS if kind == "scanvi" else None,
            n_latent=DIMENSIONS,
            max_epochs=2 if smoke else EPOCHS,
        )
        for table in tables:
            sw.pp.embed_genes(table, encoder, key_added=f"X_{kind}")
    embeddings = ["X_log1p_pca", "X_scvi", "X_scanvi"]
    result = sw.tl.batch_report(tables, batch_key="patient", embedding=embeddings, labels_key=LABELS)
    write_text(out / "batches.csv", result.to_csv())
    text = markdown(result.T.round(3).rename_axis("measure").astype(str)) + "\n"
    write_text(out / "batches.md", text)
    axes = sw.pl.batches(tables, batch_key="patient", embeddings=embeddings, labels_key=LABELS, report=result)
    cast("Figure", axes[0].figure).savefig(out / "batches.png", dpi=75)
    print(text)
    return result


def _components(tables: list[AnnData]) -> None:
    """Write the principal components of log1p(CP10k) over all sections, which is the expression before any correction."""
    from sklearn.decomposition import PCA

    from spatialwhisperer.statistics.expression.value_spaces import to_space

    genes = sw.pp.select_genes(tables, method="hvg", n_top=500)
    totals = [np.asarray(sp.csr_matrix(t.X).sum(axis=1)).ravel() for t in tables]
    counts = [sp.csr_matrix(t[:, genes].X) for t in tables]
    values = [to_space(x, library=n).toarray() for x, n in zip(counts, totals, strict=True)]
    components = PCA(DIMENSIONS, random_state=0).fit_transform(np.concatenate(values))
    start = 0
    for table in tables:
        table.obsm["X_log1p_pca"] = components[start : start + table.n_obs].astype(np.float32)
        start += table.n_obs
