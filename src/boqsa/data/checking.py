"""Look at a packed data set again: are the files the manifest's, and the labels those the catalog allows?

What is counted is printed even where nothing is known to compare it with, so that whoever has the published
files can see what they hold (spec/datasets.md 18 and 19.4). Fewer images than were published are a notice: a part of a
data set is a good thing to work on, as long as everyone knows.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boqsa.data.catalog import CATALOG
from boqsa.data.manifest import MANIFEST, Manifest, shard_file
from boqsa.data.packed import PackedDataset
from boqsa.data.packing import CLASSES
from boqsa.data.readers.source import some_of
from boqsa.errors import InputError
from boqsa.plain import printable, refuse_special

_PIECE_PIXELS = 1 << 22
"""Pixels looked at together."""


@dataclass(frozen=True)
class SplitReport:
    """What was counted in one split."""

    images: int
    label_images: dict[int, int]
    """Label -> images in which it occurs; empty without masks. -1 = ignore."""
    objects: dict[int, int]
    """Number of objects -> images with so many; empty without masks."""
    classes: dict[int, int]
    """Class -> objects of it, -1 for those without; empty where no classes are known."""
    background: float | None
    """Mean share of the pixels that are background, of those that are not ignored; None without masks."""
    expected: int | None
    """Images of the published split, where that is known."""


@dataclass(frozen=True)
class CheckReport:
    """The outcome of `check`: `findings` is empty if everything agrees."""

    manifest: Manifest
    splits: dict[str, SplitReport]
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.findings

    def lines(self) -> list[str]:
        """The report as text: the source, the counts of each split, the notices, the findings.

        What cannot be printed, as names of files and images may have, is shown as an escape.
        """
        manifest = self.manifest
        height, width = manifest.image_size
        lines = [
            f"{manifest.name}: {manifest.task}, {height}x{width}, from {manifest.source}",
            f"licence: {manifest.licence}",
            f"splits: {manifest.split_rule}{' (partial source)' if manifest.partial else ''}",
            f"fingerprint: {manifest.fingerprint}",
        ]
        for split, report in self.splits.items():
            published = "" if report.expected in (None, report.images) else f" of {report.expected} published"
            lines.append(f"{split}: {report.images} images{published}" + ("" if report.objects else ", no masks"))
            if report.objects:
                lines.append("  images with k objects: " + _histogram(report.objects))
                lines.append("  images with label k: " + _histogram(report.label_images))
            if report.classes:
                lines.append("  objects of class k: " + _histogram(report.classes, unknown="none"))
            if report.background is not None:
                lines.append(f"  background: {report.background:.3f} of the pixels")
        if manifest.leak:
            lines.append(f"leak: scores on these splits must say `{manifest.leak}`")
        lines += [f"note: {notice}" for notice in manifest.notices]
        lines += [f"skipped: {name}" for name in manifest.skipped]
        lines += [f"WRONG: {finding}" for finding in self.findings]
        lines.append("ok" if self.ok else f"{len(self.findings)} findings")
        return [printable(line) for line in lines]


def check(target: str | Path) -> CheckReport:
    """Verify a packed folder: sha256 of each file, shapes, labels against the catalog.

    Raises:
        InputError: if `target` is not a packed data set at all; damage to one is a finding, not an error.
    """
    folder = Path(target)
    manifest = Manifest.load(folder)
    findings = _check_files(folder, manifest)
    splits: dict[str, SplitReport] = {}
    for split in manifest.counts:
        try:
            dataset = PackedDataset(folder, split)
        except InputError as error:
            findings.append(str(error))
            continue
        splits[split], wrong = _check_split(dataset)
        findings += wrong
    return CheckReport(manifest, splits, tuple(findings))


def _check_files(folder: Path, manifest: Manifest) -> list[str]:
    findings = []
    for name, digest in manifest.sha256.items():
        try:
            refuse_special(folder / name)
            with open(folder / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            findings.append(f"cannot read {name}: {error.strerror}")
            continue
        except ValueError as error:
            findings.append(str(error))
            continue
        if found != digest:
            findings.append(f"{name} was changed: sha256 {found[:12]}..., the manifest says {digest[:12]}...")
    findings += _missing_files(manifest)
    expected = {MANIFEST, *manifest.sha256}
    if extra := sorted(path.name for path in folder.iterdir() if path.name not in expected):
        findings.append(f"files that do not belong here: {some_of(extra)}")
    return findings


def _missing_files(manifest: Manifest) -> list[str]:
    """Shards that the counts ask for and the manifest does not list."""
    missing = []
    for split, count in manifest.counts.items():
        shards = range(-(-count // manifest.images_per_shard))
        columns = ["image", *manifest.extras]
        if shard_file(split, "mask", 0) in manifest.sha256:
            columns.append("mask")
        files = [shard_file(split, column, shard) for column in columns for shard in shards]
        missing += [name for name in files if name not in manifest.sha256]
    return [f"the manifest lists no {some_of(missing)}"] if missing else []


def _check_split(dataset: PackedDataset) -> tuple[SplitReport, list[str]]:
    manifest = dataset.manifest
    known = CATALOG.get(manifest.name)
    label_images: Counter[int] = Counter()
    objects: Counter[int] = Counter()
    classes: Counter[int] = Counter()
    one_sided: list[int] = []
    not_black: list[int] = []
    unclassed: list[int] = []
    shares: list[float] = []
    height, width = dataset.image_size
    piece = max(1, _PIECE_PIXELS // (height * width))
    for start in range(0, len(dataset), piece):
        indices = np.arange(start, min(start + piece, len(dataset)))
        batch = dataset.batch(indices)
        if "mask" not in batch:
            continue
        masks = batch["mask"].numpy()
        for index, image, mask in zip(indices, batch["image"].numpy(), masks, strict=True):
            labels = np.unique(mask)
            label_images.update(labels.tolist())
            objects[int((labels > 0).sum())] += 1
            counted = mask >= 0
            if counted.any():
                shares.append(float((mask[counted] == 0).mean()))
            # A foreground mask that is all or nothing cannot be scored.
            if len(labels[labels >= 0]) < 2:
                one_sided.append(int(index))
            if CLASSES in batch:
                of_label = batch[CLASSES][index - start].numpy()
                if of_label.ndim != 1 or labels[-1] >= len(of_label):
                    unclassed.append(int(index))
                if of_label.ndim == 1:
                    present = labels[labels > 0]
                    classes.update(of_label[present[present < len(of_label)]].tolist())
            if known is not None and known.black_background and image[:, mask == 0].any():
                not_black.append(int(index))
    report = SplitReport(
        images=len(dataset),
        label_images=dict(sorted(label_images.items())),
        objects=dict(sorted(objects.items())),
        classes=dict(sorted(classes.items())),
        background=float(np.mean(shares)) if shares else None,
        expected=_expected(manifest, dataset.split),
    )
    return report, _split_findings(dataset, report, one_sided, not_black, unclassed)


def _expected(manifest: Manifest, split: str) -> int | None:
    """Images of the published split, if it was made by the default rule from all images."""
    known = CATALOG.get(manifest.name)
    if known is None or manifest.options.get("max_objects") is not None:
        return None
    chosen = manifest.options.get("split")
    if chosen is not None and chosen != next(iter(known.splits), None):
        return None
    return known.expected.get(split)


def _split_findings(
    dataset: PackedDataset, report: SplitReport, one_sided: list[int], not_black: list[int], unclassed: list[int]
) -> list[str]:
    findings = []
    try:
        names = dataset.names()
    except InputError as error:
        names = None
        findings.append(str(error))

    def which(indices: list[int]) -> str:
        return some_of([str(index) if names is None else f"{index} ({names[index]})" for index in indices])

    known = CATALOG.get(dataset.manifest.name)
    allowed = {} if known is None else known.highest_label
    highest = allowed.get(dataset.split, allowed.get("*"))
    found = max(report.label_images, default=0)
    if highest is not None and found > highest:
        findings.append(f"{dataset.split}: label {found} occurs, the highest of {dataset.manifest.name} is {highest}")
    if dataset.manifest.task == "foreground" and one_sided:
        findings.append(
            f"{dataset.split}: {len(one_sided)} masks are all background or all foreground: images {which(one_sided)}"
        )
    if not_black:
        findings.append(
            f"{dataset.split}: {len(not_black)} images are not black where their mask is background: images "
            f"{which(not_black)}; are images and masks paired rightly?"
        )
    if unclassed:
        findings.append(
            f"{dataset.split}: {len(unclassed)} masks have labels beyond those with a class: images {which(unclassed)}"
        )
    return findings


def _histogram(counts: dict[int, int], *, unknown: str = "ignore") -> str:
    return ", ".join(f"{unknown if key < 0 else key}: {count}" for key, count in counts.items())
