"""Sampling the training data that a model keeps as its reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.table.counts import counts_for
from spatialwhisperer._access.table.fingerprints import name_hashes, trained_rows
from spatialwhisperer._provenance import recorded_as
from spatialwhisperer.encoders.gene.base import GeneEncoder
from spatialwhisperer.models.reference import Reference, ReferenceConfig
from spatialwhisperer.models.training_range import unseen_distances, unseen_looks
from spatialwhisperer.pp.features.images import FeatureRecord
from spatialwhisperer.statistics.cross_entropy import left_out_excess, log_profiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.tl._training.inputs import Inputs
    from spatialwhisperer.tl._training.sources import Source
    from spatialwhisperer.training.batches import Items

PAIRS, TEXT_ROWS, SAMPLE = 1000, 2000, 500
"""Largest numbers of image–bridge pairs, of rows with captions, and of standardised image features to keep."""

UNSEEN_ROWS = 5000
"""Rows of all sections together whose distance from the others is measured, the same number of each section."""

BLOCK_BYTES = 2**18
"""Size of one array; where rows are wide, fewer of them are kept, but at least `FEWEST`."""

FEWEST = 100
CAPTION_CHARACTERS = 100_000


def attach_reference(
    model: Whisperer,
    inputs: Inputs,
    items: Items,
    sources: Sequence[Source],
    *,
    bridge: str | None,
    layer: str | None = None,
    mpp: Sequence[float] = (),
    random_state: int = 0,
) -> None:
    """Give a fitted model its :class:`~spatialwhisperer.models.reference.Reference`.

    Its size does not grow with the data: at most 1000 pairs of image and bridge modality and 2000 rows with captions are drawn,
    fewer where embeddings have more than 131 dimensions (65 for the rows with captions).

    Parameters
    ----------
    model
        The fitted model; ``model.reference`` is set.
    inputs, items
        The data that it was fitted on. The items hold no rows of validation groups.
    sources
        The objects; without them the reference has no profiles of counts, and recognises no sections.
    bridge
        Modality through which text reaches images.
    layer
        Layer with raw counts.
    mpp
        Microns per pixel of the images, where there are no objects to ask.
    random_state
        Seed of the draws.
    """
    rng = np.random.default_rng(random_state)
    fill = _Filling(model, inputs, items, sources, bridge or "gene", layer, rng, mpp)
    model.reference = fill.reference()


@dataclass
class _Filling:
    """Draws the samples one after the other; with a seed the result depends on their order."""

    model: Whisperer
    inputs: Inputs
    items: Items
    sources: Sequence[Source]
    bridge: str
    layer: str | None
    rng: np.random.Generator
    mpp: Sequence[float] = ()

    def reference(self) -> Reference:
        config: dict[str, Any] = {"bridge": self.bridge, "n": {}}
        arrays: dict[str, np.ndarray] = {}
        self._image_pairs(config, arrays)
        self._captioned(config, arrays)
        self._means(arrays)
        if self._encodes_counts() and "text" in self.items.index:
            self._profiles(arrays)
        if "image" in self.items.index:
            config |= self._image_range()
            if "image" not in self.model.towers:
                self._image_features(config, arrays)
        config["trained_sections"] = self._trained_rows(arrays)
        return Reference(ReferenceConfig(**config), arrays)

    def _encodes_counts(self) -> bool:
        encoder = self.model.encoders.get("gene")
        counted = bool(self.sources) and self.bridge == "gene" and "gene" in self.items.index
        return counted and isinstance(encoder, GeneEncoder)

    # --------------------------------------------------------------------------------------------- embeddings

    def _image_pairs(self, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        pairs = _pairs(self.items, "image", self.bridge)
        if not len(pairs):
            return
        config["n"][f"image–{self.bridge}"] = len(pairs)
        keep = self._draw(len(pairs), self._rows(PAIRS))
        arrays["pair_image"] = self._embed("image", pairs[keep, 0])
        arrays["pair_bridge"] = self._embed(self.bridge, pairs[keep, 1])
        arrays["pair_group"] = self._group_codes()[pairs[keep, 2]]

    def _captioned(self, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        pairs = _pairs(self.items, self.bridge, "text")
        if not len(pairs):
            return
        config["n"][f"{self.bridge}–text"] = len(pairs)
        pairs = pairs[self._draw(len(pairs), self._rows(TEXT_ROWS))]
        captions = np.unique(pairs[:, 1])
        # long captions: as many of them as fit, and only the rows that have them
        captions = captions[self._draw(len(captions), self._rows(TEXT_ROWS))]
        lengths = np.cumsum([len(self.inputs.captions[i]) for i in captions])
        captions = captions[: max(1, int(np.searchsorted(lengths, CAPTION_CHARACTERS, side="right")))]
        pairs = pairs[np.isin(pairs[:, 1], captions)]
        config["captions"] = tuple(self.inputs.captions[i] for i in captions)
        arrays["caption"] = self._embed("text", captions)
        arrays["text_bridge"] = self._embed(self.bridge, pairs[:, 0])
        arrays["text_caption"] = np.searchsorted(captions, pairs[:, 1]).astype(np.int32)
        arrays["text_group"] = self._group_codes()[pairs[:, 2]]

    def _means(self, arrays: dict[str, np.ndarray]) -> None:
        for modality, index in self.items.index.items():
            used = np.unique(index[index >= 0])
            z = self._embed(modality, used[self._draw(len(used), self._rows(PAIRS))])
            arrays[f"mean_{modality}"] = z.astype(np.float32).mean(axis=0)

    def _embed(self, modality: str, at: np.ndarray) -> np.ndarray:
        """Unit embeddings, float16, of the inputs of a modality at some positions."""
        import torch

        raw = self.inputs.modalities[modality].raw
        if modality in self.model.contexts:
            # a context module reads the neighbours, so that the whole modality is embedded
            rows = self.inputs.observations[self.inputs.observations[modality] >= 0].sort_values(modality)
            sections, xy = rows["section"].to_numpy(), rows[["x", "y"]].to_numpy()
            context = self.model.config.modality(modality).context
            if context is not None and context.array_positions:
                # of objects without a pair, which may have no positions
                xy = np.nan_to_num(xy)
            return self.model.project(modality, raw, sections=sections, positions=xy)[at].astype(np.float16)
        if modality in self.model.towers:
            return self.model.project(modality, self.inputs.raw_at(modality, at)).astype(np.float16)
        # features of the items are standardised already
        x = torch.as_tensor(np.asarray(self.items.inputs[modality][at], dtype=np.float32))
        with torch.inference_mode():
            return self.model.eval()(modality, x).numpy().astype(np.float16)

    def _group_codes(self) -> np.ndarray:
        groups = self.inputs.observations["group"].to_numpy().astype(str)
        return np.unique(groups, return_inverse=True)[1].astype(np.int32)

    def _rows(self, most: int, width: int | None = None) -> int:
        """Number of rows of half precision that fit into a block."""
        width = self.model.config.projection_dim if width is None else width
        return min(most, max(FEWEST, BLOCK_BYTES // (2 * width)))

    def _draw(self, n: int, most: int) -> np.ndarray:
        """Positions of at most ``most`` of n rows, ascending."""
        return np.arange(n) if n <= most else np.sort(self.rng.choice(n, most, replace=False))

    # --------------------------------------------------------------------------------------------- counts

    def _profiles(self, arrays: dict[str, np.ndarray]) -> None:
        """Expression profiles by caption, and the excess cross-entropy of rows under profiles of other groups."""
        pairs = _pairs(self.items, "gene", "text")
        encoder = self.model.encoders["gene"]
        if not isinstance(encoder, GeneEncoder):
            raise TypeError(f"Profiles are made of counts; the gene encoder is {type(encoder).__name__}.")
        captions, counts = np.unique(pairs[:, 1], return_counts=True)
        most = max(8, BLOCK_BYTES // (2 * len(encoder.genes)))
        captions = np.sort(captions[np.argsort(-counts, kind="stable")][:most])
        pairs = pairs[np.isin(pairs[:, 1], captions)]
        if len(pairs) < 2:
            return
        pairs = pairs[self._draw(len(pairs), TEXT_ROWS)]
        x = self._counts(encoder, pairs[:, 2])
        codes = np.searchsorted(captions, pairs[:, 1])
        left_out = left_out_excess(x, codes, len(captions), self._group_codes()[pairs[:, 2]])
        left_out = left_out[np.isfinite(left_out)]
        if len(left_out):
            profiles = log_profiles(x, codes, len(captions))
            arrays["profile"] = profiles[np.isfinite(profiles).all(axis=1)].astype(np.float16)
            arrays["excess_cross_entropy"] = np.sort(left_out).astype(np.float16)

    def _counts(self, encoder: GeneEncoder, rows: np.ndarray) -> Any:
        """Counts of some observations (ascending source by source) in the encoder's genes, CSR."""
        from scipy.sparse import csr_matrix, vstack

        number = self.inputs.observations["source"].to_numpy()
        starts = np.searchsorted(number, np.arange(len(self.sources)))
        order = np.argsort(rows, kind="stable")
        parts = []
        for i in np.unique(number[rows]):
            inside = rows[order][number[rows[order]] == i] - starts[i]
            table, fewest = self.sources[i].table[inside], encoder.fewest_genes
            part = counts_for(encoder.genes, encoder.gene_ids, table, self.layer, fewest=fewest)
            parts.append(csr_matrix(part, dtype=np.float64))
        return vstack(parts, format="csr")[np.argsort(order, kind="stable")]

    # --------------------------------------------------------------------------------------------- images

    def _image_range(self) -> dict[str, Any]:
        """Encoder, tile size, and the range of microns per pixel of the images that were trained on."""
        recipe = self.inputs.modalities["image"].recipe
        scales = list(self.mpp)
        if self.sources:
            rows = self.items.row[self.items.index["image"] >= 0]
            used = np.unique(self.inputs.observations["source"].to_numpy()[rows])
            scales = [mpp for number in used for mpp in _mpp(self.sources[number], recipe.key)]
        return {
            "encoder": None if recipe.encoder is None else recipe.encoder.name,
            "tile_um": recipe.tile_um,
            "tile_px": recipe.tile_px,
            "mpp": (min(scales), max(scales)) if scales else None,
        }

    def _image_features(self, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Mean and standard deviation of the raw features by section, and a sample of the standardised features."""
        has = self.items.index["image"] >= 0
        at, first = np.unique(self.items.index["image"][has], return_index=True)
        rows = self.items.row[has][first]
        codes = self.inputs.observations["section"].to_numpy().astype(str)[rows]
        groups = self.inputs.observations["group"].to_numpy().astype(str)[rows]
        raw, whole = self.inputs.modalities["image"].raw, self.inputs.modalities["image"].whole_sections
        names = np.unique(codes)
        names = names[self._draw(len(names), max(8, BLOCK_BYTES // (8 * raw.shape[1])))]
        parts = [raw[at[codes == name]] for name in names]
        config["sections"], config["section_rows"] = tuple(names.tolist()), tuple(len(p) for p in parts)
        if whole is None:
            moments = [(p.mean(axis=0, dtype=np.float64), p.std(axis=0, dtype=np.float64)) for p in parts]
        else:
            moments = [whole[name] for name in names.tolist()]
        arrays["feature_mean"] = np.stack([mean for mean, _ in moments]).astype(np.float32)
        arrays["feature_std"] = np.stack([std for _, std in moments]).astype(np.float32)
        self._unseen(config, arrays, parts, [str(groups[codes == name][0]) for name in names])
        self._looks(arrays, names, [str(groups[codes == name][0]) for name in names])
        keep = at[self._draw(len(at), self._rows(SAMPLE, raw.shape[1]))]
        largest = float(np.finfo(np.float16).max)
        arrays["feature_sample"] = np.clip(self.items.inputs["image"][keep], -largest, largest).astype(np.float16)

    def _looks(self, arrays: dict[str, np.ndarray], names: np.ndarray, groups: list[str]) -> None:
        """What the encoder saw of the image of each section, where it saw all of them."""
        found = looks_of(self.sources, self.inputs)
        if all(name in found for name in names.tolist()):
            arrays["look"] = np.array([found[name] for name in names.tolist()], dtype=np.float32)
            arrays["unseen_look"] = unseen_looks(arrays["look"].astype(np.float64), groups)

    def _unseen(
        self, config: dict[str, Any], arrays: dict[str, np.ndarray], parts: list[np.ndarray], groups: list[str]
    ) -> None:
        """Distances of each patient's tissue from that of the others; rows are taken at equal steps, not drawn."""
        most = max(1, UNSEEN_ROWS // len(parts))
        some = [p[np.linspace(0, len(p) - 1, min(len(p), most)).astype(int)] for p in parts]
        mean, std = arrays["feature_mean"], arrays["feature_std"]
        config["unseen"], arrays["unseen_row"], arrays["unseen_section"] = unseen_distances(some, groups, mean, std)

    def _trained_rows(self, arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
        """Some rows of each section that was trained on; returns the codes of the sections."""
        if not self.sources:
            return ()
        used = np.unique(self.items.row)
        names = np.concatenate([name_hashes(source.table) for source in self.sources])[used]
        ids = np.concatenate([source.row_ids for source in self.sources])[used]
        codes, rows = trained_rows(names, ids, self.inputs.observations["section"].to_numpy()[used])
        arrays |= rows
        return codes


def looks_of(sources: Sequence[Source], inputs: Inputs) -> dict[str, tuple[float, ...]]:
    """What the encoder saw of the images of the training sections, by their codes."""
    key = inputs.modalities["image"].recipe.key
    fresh = {id(slide): result.parameters for slide, result in inputs.computed if result.key == key}
    out: dict[str, tuple[float, ...]] = {}
    for number, source in enumerate(sources):
        record = fresh.get(id(source.slide)) or recorded_as(source.table, key, FeatureRecord)
        if isinstance(record, FeatureRecord):
            out |= {f"{number}:{name}": look for name, look in record.looks.items()}
    return out


def _pairs(items: Items, a: str, b: str) -> np.ndarray:
    """Distinct pairs of inputs and the observation of each, shape (n, 3)."""
    if a not in items.index or b not in items.index:
        return np.empty((0, 3), int)
    both = (items.index[a] >= 0) & (items.index[b] >= 0)
    pairs = np.stack([items.index[a][both], items.index[b][both]], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    first.sort()
    return np.column_stack([pairs[first], items.row[both][first]])


def _mpp(source: Source, key: str | None) -> list[float]:
    """Microns per pixel of the images of an object, as recorded with its features, else as the object states them."""
    record = recorded_as(source.table, key, FeatureRecord)
    if record is not None and record.where.mpp:
        return list(record.where.mpp.values())
    if key is not None and key in source.table.obsm and "spatial" not in source.table.obsm:
        return []
    return list(source.slide.where.mpp.values())
