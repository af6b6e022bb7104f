"""What the log of a training says of its data sets before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpcgender.commands.train import TrainConfig
from hpcgender.data.limit import SPLIT
from hpcgender.data.packs import Pack, names_of
from hpcgender.data.training import TrainingLoader
from hpcgender.run_directory import BEST
from hpcgender.trainable import has_ages
from shard_tools.align.recipe import Recipe
from shard_tools.base.text import plural
from shard_tools.manifest import Manifest


def data_lines(config: TrainConfig, packs: Sequence[Pack], images: TrainingLoader) -> Iterator[str]:
    """How many images an epoch has of each data set and class, and what differs between data sets."""
    names = names_of(packs)
    if config.limit:
        for name, pack, part in zip(names, packs, images.parts, strict=True):
            subjects = f" of {plural(part.subjects, 'subject')}" if part.subjects else ""
            yield (
                f"--limit {config.limit}, seed {config.limit_seed}: {part.images:,} of "
                f"{plural(pack.manifest.split(SPLIT).samples, 'training image')} of {name}{subjects}"
            )
    if len(packs) > 1:
        for name, pack, share, drawn in zip(names, packs, images.shares(), images.drawn, strict=True):
            yield (
                f"{name}: weight {pack.weight}, {plural(share, 'image')} in the first epoch, that is "
                f"{share / drawn.samples:.2f} times its {drawn.samples:,}"
            )
        if "age" in config.tasks:
            for name, pack in zip(names, packs, strict=True):
                if not has_ages(pack.manifest, SPLIT):
                    yield f"{name} has no ages: its images count for gender alone"
        for name, pack in zip(names, packs, strict=True):
            if not pack.manifest.index(SPLIT)["appearance"].any():
                yield (
                    f"{name} was packed without looking at its images: copies that are not byte for byte the same were "
                    "not searched for"
                )
        if line := crops_differ(packs):
            yield line
    if config.sampling != "none":
        for name, part, one in zip(names, images.parts, images.drawn, strict=True):
            pairs = zip(one.targets, part.counts.items(), strict=True)
            targets = ", ".join(f"{target} of {count} {value}" for target, (value, count) in pairs)
            which = f"a pass over {name}" if len(packs) > 1 else "an epoch"
            yield f"{config.sampling}: {which} draws {targets}"


def validation_line(config: TrainConfig) -> str:
    """What a person should know of the split that epochs are validated on; empty for `val`."""
    if config.val_split == "none":
        return f"--val-split none: no epoch is validated, and {BEST} has the last weights"
    if config.val_split == "test":
        return f"WARNING: --val-split test: {BEST} is the best epoch on test, whose accuracy flatters it"
    return ""


def crops_differ(packs: Sequence[Pack]) -> str:
    """What to say of data sets that show a face in different frames; empty if all show it in one."""
    frames = {pack.manifest.root: frame(pack.manifest.crop) for pack in packs}
    if len(set(frames.values())) == 1:
        return ""
    listed = ", and ".join(f"{root} has {words}" for root, words in frames.items())
    return (
        f"WARNING: {listed}: the model sees faces in several frames, and no crop will be known of it; pack crops with "
        "--align, or state with --aligned that the images are crops already"
    )


def common_crop(manifests: Sequence[Manifest]) -> Recipe | None:
    """How the images of all data sets were cropped; None if they were not, if that is not known, or if it differs."""
    first = manifests[0].crop
    return first if all(manifest.crop == first for manifest in manifests) else None


def frame(recipe: Recipe | None) -> str:
    return recipe.frame if recipe else "images of which no crop is known"
