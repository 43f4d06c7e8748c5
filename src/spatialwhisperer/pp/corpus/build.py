"""Building a corpus: features of many slides by frozen encoders, in shards on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._compute.workers import check_client
from spatialwhisperer._docs import shared as shared_docs
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.pp.corpus import checks
from spatialwhisperer.pp.corpus.sources import CorpusSource, check_names
from spatialwhisperer.pp.corpus.stamps import changes, to_build
from spatialwhisperer.pp.corpus.work import BuildSlide, EncoderOptions, build_here, build_on
from spatialwhisperer.pp.features.options import GeneFeatures, ImageFeatures, TextFeatures
from spatialwhisperer.training.corpus.manifest import ENCODERS, NAME, Manifest, SourceRecord, check_recipe, locked
from spatialwhisperer.training.corpus.shards import check_digests, check_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from distributed import Client

    from spatialwhisperer.encoders.gene.base import GeneEncoder
    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.text.base import TextEncoder
    from spatialwhisperer.pp.corpus.checks import Found
    from spatialwhisperer.pp.corpus.embedding import Encoders
    from spatialwhisperer.training.corpus.manifest import CorpusFeature


@shared_docs
@checked
def build_corpus(
    sources: CorpusSource | Sequence[CorpusSource],
    folder: str | Path,
    *,
    image: ImageFeatures | str | torch.nn.Module | ImageEncoder | None = None,
    gene: GeneFeatures | str | Path | GeneEncoder | None = None,
    text: TextFeatures | str | Path | TextEncoder | None = None,
    shared: bool = False,
    shard_rows: int = 32768,
    dtype: Literal["float32", "float16"] = "float32",
    verify: bool = False,
    batch_size: int | None = None,
    device: str | None = None,
    client: Client | None = None,
) -> Path:
    """Embed slides by frozen encoders, one after the other, and keep the features on the disk.

    A corpus is what :func:`spatialwhisperer.tl.train` reads where data do not fit into memory. One slide is in memory at a time. Every slide is
    checked before the first one is embedded. A slide that is in the corpus is not computed again, so that the same call adds
    slides, or continues after it was killed. One that holds a modality which its record lacks, because that was not asked for or not
    there, is built again with all its modalities, and its former rows stay until it is finished. Several processes, also of several
    machines that share the folder, may build one corpus: each slide is built by one of them.

    Parameters
    ----------
    sources
        Where the slides are from.
    folder
        Folder of the corpus.
    image
        Image encoder, or :class:`~spatialwhisperer.tl.ImageFeatures`; ``None`` keeps no image features. A tile size that is left open is that of
        the encoder. Slides of :func:`spatialwhisperer.datasets.hest` are read by their patches.
    gene
        Gene encoder that is fitted already, its folder, ``"geneformer"``, or :class:`~spatialwhisperer.tl.GeneFeatures`; ``None`` keeps no
        gene features.
    text
        Text encoder, or :class:`~spatialwhisperer.tl.TextFeatures`, of which the encoder and its pooling are used; ``None`` keeps no captions.
    shared
        The corpus is passed on. Sources and encoders whose licence is not known to allow that are refused.
    shard_rows
        Largest number of rows of a shard. Memory of that many rows is needed twice.
    dtype
        Type of the stored features. ``"float16"`` needs half the space, and keeps about three decimals.
    verify
        Compare the checksum of every file of the corpus first, which reads all of it. Sizes are always compared.
    %(batch_size)s
    %(device)s
    client
        Client of dask.distributed, over whose workers the slides are distributed. The folder of the corpus and the files of the sources must be
        on a disk that all workers share. Slides of a worker that dies are built by another one.

    Returns
    -------
    The folder, which holds

    ``manifest.json``
        For each modality the recipe of its features, their number and the licence of the encoder. For each source its licence.
        For each slide its sections, and how many rows have free and templated captions. For each shard its patients, and the size and
        SHA-256 of its files.
    ``shards/<slide>/<modalities>-<number>/``
        An AnnData in zarr (``anndata.read_zarr``) of rows that hold the same modalities, sorted by patient: ``.obs`` has ``patient`` and
        ``section``, ``.obsm["X_image"]`` and ``.obsm["X_gene"]`` the features, and ``.uns["sw_captions"]`` the distinct captions with theirs.
        ``.obsm["sw_rows"]`` has the number of the section of each row, a number that is the same for rows with the same captions, and the
        rows of its captions in ``.uns["sw_captions"]``. Matrices are chunks of 256 rows in one file, each chunk with a CRC-32C. Rows with
        fewer than two modalities are left out.
    ``encoders/gene/``
        The gene encoder, where its name alone does not define it.

    Raises
    ------
    TypeError
        If ``client`` is no client of dask.distributed.
    RuntimeError
        If slides failed on the workers of ``client``; the others are in the corpus.
    KeyError
        If a source has no column with the patient, or named features or captions are not there.
    FileNotFoundError
        If a file of a source does not exist.
    ValueError
        If a row has no patient, no slide holds two modalities, genes are of two species, ``shared`` is on and a licence does not
        allow it, ``client`` is given and a source holds objects in memory, the folder holds a corpus of another recipe or with a file
        that is missing or cut off, a slide changed since it was built (its rows, patients, sections, genes, captions, places and scale
        are compared, and the counts, given features and pixels of some rows), or a gene encoder would have to be fitted. Nothing is
        written then, and what was built stays. Also if features are too large for ``dtype``; the slides before this one are in the corpus
        then.

    Examples
    --------
    >>> import tempfile
    >>> import spatialwhisperer as sw
    >>> data = sw.datasets.simulate_sections(2, 80, n_genes=100, n_reference_cells=200, random_state=0)
    >>> genes = sw.pp.fit_gene_encoder(list(data.sections.values()), "pca", n_latent=8)
    >>> slides = sw.pp.CorpusSource("slides", data.sections, licence="CC0")
    >>> cells = sw.pp.CorpusSource("cells", data.reference, licence="CC0")
    >>> tiles = sw.tl.ImageFeatures("stain_texture", tile_um=80, tile_px=64)
    >>> folder = tempfile.mkdtemp()
    >>> corpus = sw.pp.build_corpus([slides, cells], folder, image=tiles, gene=genes, text="minilm")
    >>> sorted(path.name for path in corpus.iterdir() if not path.name.startswith("."))
    ['encoders', 'manifest.json', 'shards']
    """
    given = [sources] if isinstance(sources, CorpusSource) else list(sources)
    check_names(given)
    if shard_rows < 1:
        raise ValueError(f"shard_rows must be a positive whole number; found {shard_rows}.")
    options = _options(image, gene, text, batch_size, device)
    if client is not None:
        check_client(client)
        given = [source.on_disk() for source in given]
    encoders = options.open()
    where = Path(folder).expanduser().absolute()
    there = _existing(where, verify=verify)
    found = checks.look_at(given, encoders)
    features = checks.one_recipe(found)
    asked = Manifest(features, dtype, {s.name: SourceRecord(s.licence, s.may_be_shared, s.url) for s in given})
    if there is not None:
        check_recipe(there, asked, where)
        _check_same_slides(there, found)
        _say_uneven(there, features, found)
    if shared:
        checks.check_licences(given, features, there)
    _begin(where, asked, encoders)
    work = BuildSlide(where, {s.name: s for s in given}, options, found, shard_rows, dtype)
    if client is None:
        build_here(work, encoders)
    else:
        build_on(client, work)
    return where


def _options(
    image: ImageFeatures | str | torch.nn.Module | ImageEncoder | None,
    gene: GeneFeatures | str | Path | GeneEncoder | None,
    text: TextFeatures | str | Path | TextEncoder | None,
    batch_size: int | None,
    device: str | None,
) -> EncoderOptions:
    images = image if image is None or isinstance(image, ImageFeatures) else ImageFeatures(image)
    genes = gene if gene is None or isinstance(gene, GeneFeatures) else GeneFeatures(gene)
    texts = text if text is None or isinstance(text, TextFeatures) else TextFeatures(text)
    if sum(one is not None for one in (images, genes, texts)) < 2:
        raise ValueError("A corpus holds pairs: pass two or three of image=…, gene=… and text=….")
    return EncoderOptions(images, genes, texts, batch_size, device)


def _existing(folder: Path, *, verify: bool) -> Manifest | None:
    """The manifest of a corpus that is there, after a look at its files; shards whose folder was removed do not count."""
    while True:
        there = Manifest.read(folder)
        try:
            return _looked_at(folder, there, verify=verify)
        except ValueError:
            # another process that built a slide again at this moment removes its former shards
            if Manifest.read(folder) == there:
                raise


def _looked_at(folder: Path, there: Manifest | None, *, verify: bool) -> Manifest | None:
    if there is None:
        if folder.is_dir() and (folder / "shards").exists():
            raise ValueError(
                f"{folder} holds shards without {NAME}. Copy the manifest again, or choose another folder."
            )
        return None
    kept = [s for s in there.slides if all((folder / shard.path).is_dir() for shard in s.shards)]
    present = Manifest(there.features, there.dtype, there.sources, tuple(kept))
    check_sizes(folder, present)
    if verify:
        check_digests(folder, present.shards)
    return present


def _check_same_slides(there: Manifest, found: Mapping[tuple[str, str], Found]) -> None:
    """Refuse slides that changed since they were built.

    Raises
    ------
    ValueError
        If there are some.
    """
    changed = []
    for (source, name), one in found.items():
        if what := changes(there.find(source, name), one.stamps):
            changed.append(f"{source}/{name} ({listing(what)})")
    if changed:
        raise ValueError(
            f"{listing(changed)} changed since they were built. Give what was changed another name, or remove the folders of its shards, and "
            "it is built again."
        )


def _say_uneven(there: Manifest, features: Mapping[str, CorpusFeature], found: Mapping[tuple[str, str], Found]) -> None:
    """Name the modalities that only some slides of the corpus will have because not every call asked for them."""
    new, left_out = sorted({*features} - {*there.features}), sorted({*there.features} - {*features})
    stay = [
        f"{s.source}/{s.name}"
        for s in there.slides
        if (s.source, s.name) not in found or not to_build(s, found[s.source, s.name].stamps)
    ]
    if new and stay:
        inform(f"{len(stay)} slides of the corpus stay as they are, without {listing(new)} features: {listing(stay)}.")
    if left_out:
        inform(f"Slides that are added get no {listing(left_out)} features, which earlier slides of the corpus have.")


def _begin(folder: Path, asked: Manifest, encoders: Encoders) -> None:
    """Write the manifest, or add sources to the one that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        there = _existing(folder, verify=False)
        if there is not None:
            # another process may have begun it meanwhile
            check_recipe(there, asked, folder)
        base = asked if there is None else there
        features = {**asked.features, **base.features}
        Manifest(features, asked.dtype, {**base.sources, **asked.sources}, base.slides).write(folder)
        gene = encoders.gene_encoder
        if gene is not None and features["gene"].stored and not (folder / ENCODERS / "gene").exists():
            gene.save(folder / ENCODERS / "gene")
