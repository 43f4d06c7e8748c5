"""Features and how they were made: what a call asks for, what is stored, and whether the two agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import feature_matrix
from spatialwhisperer._access.records import Where
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.sections.section import say_scales
from spatialwhisperer._access.tiles.intensity import check_intensity
from spatialwhisperer._access.tiles.lazy import LazyTiles
from spatialwhisperer._access.tiles.plan import check_resolution, plan_tiles
from spatialwhisperer._access.tiles.sight import Sight
from spatialwhisperer._checks.values import check_tile, one_of
from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import inform, listing, warn
from spatialwhisperer._provenance import lost_record, recorded_as
from spatialwhisperer._storage.schema import Stored
from spatialwhisperer.encoders.image.base import columns_of
from spatialwhisperer.encoders.recipe import Border, FeatureRecipe
from spatialwhisperer.pp.features.tile_features import embed_tiles, read_tiles
from spatialwhisperer.pp.features.tile_sizes import check_fine_enough, has_own_sizes, tile_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from spatialwhisperer._access.records import OffSlide
    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer._access.tiles.plan import TilePlan
    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.spec import EncoderSpec
    from spatialwhisperer.pp.features.encoder_choice import EncoderChoice

_TILE_PX = 224


@dataclass(frozen=True)
class FeatureRecord(Stored):
    """What is stored beside features: how they were made, where they were read, and the licence of the encoder.

    Attributes
    ----------
    recipe, licence, where
        How they were made, with an encoder of which licence, and on which images.
    looks
        What the encoder saw of the whole image of each section, where it looks at images.
    commit
        Commit on the hub that the weights of the encoder were of; ``None`` where they are not from there.
    sight
        Where some of the rows lay, and what was there.
    n_rows
        Number of rows of the table; ``None`` where it is not known.
    """

    recipe: FeatureRecipe
    licence: str
    where: Where = field(default_factory=Where)
    looks: Mapping[str, tuple[float, ...]] = field(default_factory=frozen)
    commit: str | None = None
    sight: Sight = field(default_factory=Sight)
    n_rows: int | None = None


@dataclass(frozen=True)
class Features:
    """Features of the rows of a slide.

    Attributes
    ----------
    values
        Features in the order of the table, float32, shape (n, d).
    result
        What to write; ``None`` where stored features are used.
    """

    values: np.ndarray
    result: Result | None = None

    @property
    def results(self) -> tuple[Result, ...]:
        """What to write."""
        return () if self.result is None else (self.result,)


def image_recipe(
    slide: Slide,
    choice: EncoderChoice,
    *,
    tile_um: float | Sequence[float] | None = None,
    tile_px: int | None = None,
    border: Border = "pad",
    key: str | None = None,
) -> FeatureRecipe:
    """How the features that a call asks for are made: its arguments, else what `tiles` recorded, else the sizes of the encoder.

    Raises
    ------
    ValueError
        If a size is not positive or repeated, no size is known, or one is given to an encoder that has its own.
    """
    one_of("border", border, Border)
    spec = choice.spec
    given, tile_px = tile_sizes(spec, slide.tiles, tile_um, tile_px)
    for um in given:
        check_tile(um, tile_px)
    return FeatureRecipe(
        choice.identity,
        _keys.features(spec.name) if key is None else key,
        tuple(float(um) for um in given),
        int(_TILE_PX if tile_px is None else tile_px),
        border,
    )


def image_features(
    slide: Slide,
    recipe: FeatureRecipe,
    load: Callable[[], ImageEncoder],
    *,
    batch_size: int | None = None,
    device: str | None = None,
) -> Features:
    """Features made by a recipe: the stored ones where their recipe, image, scale and places are the same, else computed.

    Features without a record of how they were made are neither used nor overwritten. The user is told why stored features are not
    used.

    Parameters
    ----------
    slide
        The slide.
    recipe
        How the features are made.
    load
        Opens the encoder; called only where features are computed.
    batch_size, device
        Tiles in one forward pass and torch device; ``None`` takes those of the settings.

    Raises
    ------
    KeyError
        If the recipe names a key in ``.obsm`` instead of an encoder and the key does not exist, or there is no image.
    ValueError
        If the scale is not known, a coordinate is NaN, or centres lie outside the image.
    """
    key = recipe.key or _keys.features(recipe.name)
    if recipe.encoder is None:
        return Features(given_features(slide, key))
    stored = key in slide.table.obsm
    record = recorded_as(slide.table, key, FeatureRecord)
    why = _differs(slide, record, recipe) if stored else ""
    if stored and not why:
        return Features(feature_matrix(slide.table.obsm[key], f".obsm[{key!r}]"))
    own = record is not None or lost_record(slide.table, key)
    if stored:
        inform(
            f".obsm[{key!r}] {why}. The features are computed again"
            + (
                "."
                if own
                else f", and what lies there is left as it is. A model of image=sw.tl.ImageFeatures(key={key!r}) uses it."
            )
        )
    computed = compute_image_features(slide, recipe, load(), batch_size=batch_size, device=device)
    return computed if not stored or own else Features(computed.values)


def are_stored(slide: Slide, recipe: FeatureRecipe) -> bool:
    """Whether features made by a recipe, of the image and at the scale that are asked for, are stored."""
    key = recipe.key or _keys.features(recipe.name)
    return key in slide.table.obsm and not _differs(slide, recorded_as(slide.table, key, FeatureRecord), recipe)


def compute_image_features(slide: Slide, recipe: FeatureRecipe, encoder: ImageEncoder, **options: Any) -> Features:
    """Compute the features of a recipe, whatever is stored."""
    plan = _checked_plan(slide, recipe, options.pop("off_slide", None), encoder.spec)
    whole = recipe.border == "nan"
    looks: dict[str, tuple[float, ...]] = {}
    values = embed_tiles(
        plan,
        encoder,
        recipe.tile_um,
        _tile_px(recipe),
        whole=whole,
        identity=recipe.encoder,
        looks=looks,
        native=recipe.native_px,
        **options,
    )
    key = recipe.key or _keys.features(recipe.name)
    licence, commit = encoder.spec.licence, getattr(encoder, "commit", None)
    sight = Sight.of(plan.sections, slide.table.obs_names)
    record = FeatureRecord(recipe, licence, slide.where, looks, commit, sight, slide.n_rows)
    return Features(values, Result(key, record, obsm={key: values}, obs=columns_of(encoder, values)))


def image_looks(slide: Slide, key: str | None, results: Sequence[Result] = ()) -> Mapping[str, tuple[float, ...]]:
    """What the image encoder saw of the image of each section, from features that were just computed, else from stored ones."""
    record = feature_record(slide, key, results)
    return {} if record is None else record.looks


def feature_record(slide: Slide, key: str | None, results: Sequence[Result] = ()) -> FeatureRecord | None:
    """The record of features that were just computed, else of stored ones; ``None`` where there is none."""
    fresh = [r.parameters for r in results if r.key == key and isinstance(r.parameters, FeatureRecord)]
    return fresh[0] if fresh else recorded_as(slide.table, key, FeatureRecord)


def raw_tiles(slide: Slide, recipe: FeatureRecipe) -> tuple[np.ndarray, np.ndarray]:
    """Tiles for an encoder that was trained.

    Returns
    -------
    The tiles of a recipe with one size, uint8, shape (n, 3, tile_px, tile_px), and the rows whose centre lies outside the image,
    Boolean, shape (n,).
    """
    plan = _checked_plan(slide, recipe)
    return read_tiles(plan, recipe.tile_um[0], _tile_px(recipe)), plan.off


def lazy_tiles(slide: Slide, recipe: FeatureRecipe) -> tuple[LazyTiles, np.ndarray]:
    """The tiles of `raw_tiles` whose centre lies on the image, which are read when they are indexed, and the other rows."""
    plan = _checked_plan(slide, recipe)
    return LazyTiles.of(plan, recipe.tile_um[0], _tile_px(recipe)), plan.off


def _checked_plan(
    slide: Slide, recipe: FeatureRecipe, off_slide: OffSlide | None = None, spec: EncoderSpec | None = None
) -> TilePlan:
    """Where the tiles are, after a look at the intensities and the resolution of the images."""
    plan = plan_tiles(slide, off_slide)
    stated, px = slide.tiles, _tile_px(recipe)
    if stated is None:
        say_scales(plan.sections)
    for section in plan.sections:
        check_intensity(section)
    if spec is not None and has_own_sizes(spec):
        check_fine_enough(plan.sections, spec)
        return plan
    # `tiles` has checked what it stated
    if not recipe.native_px and (stated is None or (stated.tile_px, (stated.tile_um,)) != (px, recipe.tile_um)):
        check_resolution(plan.sections, recipe.tile_um, px, "warn" if stated is None else stated.on_low_res)
    return plan


def _tile_px(recipe: FeatureRecipe) -> int:
    return int(recipe.tile_px or _TILE_PX)


def given_features(slide: Slide, key: str) -> np.ndarray:
    """Features that are used as they are, float32, shape (n, d).

    Raises
    ------
    KeyError
        If the key does not exist.
    ValueError
        If it holds no numbers, or infinite ones.
    """
    if key not in slide.table.obsm:
        raise KeyError(
            f"{key!r} is not in .obsm (found: {listing(slide.table.obsm)}). The model was trained on features under this key, which "
            "only you can compute: store them there first."
        )
    record = recorded_as(slide.table, key, FeatureRecord)
    if record is not None and _has_more_rows(slide, record):
        warn(
            f".obsm[{key!r}] was computed of {record.n_rows} rows, and the table has {slide.n_rows}: the others are of another object, "
            "whose record is lost. Check that their features were computed alike."
        )
    return feature_matrix(slide.table.obsm[key], f".obsm[{key!r}]")


def _has_more_rows(slide: Slide, record: FeatureRecord) -> bool:
    """Whether rows were added, as by anndata.concat, which may keep the record of one object for all."""
    return record.n_rows is not None and slide.n_rows > record.n_rows


def _differs(slide: Slide, record: FeatureRecord | None, recipe: FeatureRecipe) -> str:
    """How stored features differ from those that are asked for, as text; empty where they do not."""
    if record is None:
        return "has no record of how it was made"
    theirs = record.recipe
    if theirs.encoder != recipe.encoder:
        same = theirs.name == recipe.name
        if same and recipe.encoder is not None and recipe.encoder.unread:
            return (
                f"may hold features of another {theirs.name!r}: this encoder is never recognised, because {recipe.encoder.unread} "
                "cannot be read"
            )
        return (
            f"holds features of {'another ' if same else ''}{theirs.name!r}, and those of {recipe.name!r} are asked for"
        )
    if not theirs.same_features(recipe):
        return f"holds features of {theirs.tiles}, and {recipe.tiles} are asked for"
    asked = _where_asked(slide)
    if where := record.where.differs(asked):
        return where
    if _has_more_rows(slide, record):
        return f"was computed of {record.n_rows} rows, and the table has {slide.n_rows}"
    return record.sight.changed(slide.frames, slide.table.obs_names) if asked.image else ""


def _where_asked(slide: Slide) -> Where:
    """Image and scale that the call would read; empty where they are ambiguous and the caller names none of them."""
    try:
        return slide.where
    except (KeyError, ValueError):
        if any(value is not None for name, value in slide.options.items() if name != "table_key"):
            raise
        return Where()


def with_key(recipe: FeatureRecipe, key: str) -> FeatureRecipe:
    """The same features under another key."""
    return replace(recipe, key=key)
