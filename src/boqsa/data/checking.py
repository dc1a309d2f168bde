"""Look at a packed data set again: are the files the manifest's, and the labels those the catalog allows?

What is counted is printed even where nothing is known to compare it with, so that whoever has the published
files can see what they hold (spec/datasets.md 18 and 19.4).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boqsa.data.catalog import CATALOG
from boqsa.data.manifest import MANIFEST, Manifest
from boqsa.data.packed import PackedDataset
from boqsa.data.packing import IGNORE, shard_file
from boqsa.data.readers.source import some_of
from boqsa.errors import InputError

_PIECE = 1_024
"""Images looked at together."""


@dataclass(frozen=True)
class SplitReport:
    """What was counted in one split."""

    images: int
    label_images: dict[int, int]
    """Label -> images in which it occurs; empty without masks. -1 = ignore."""
    objects: dict[int, int]
    """Number of objects -> images with so many; empty without masks."""


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
        """The report as text: the source, the counts of each split, the notices, the findings."""
        manifest = self.manifest
        height, width = manifest.image_size
        lines = [
            f"{manifest.name}: {manifest.task}, {height}x{width}, from {manifest.source}",
            f"licence: {manifest.licence}",
            f"splits: {manifest.split_rule}{' (partial source)' if manifest.partial else ''}",
            f"fingerprint: {manifest.fingerprint}",
        ]
        for split, report in self.splits.items():
            lines.append(f"{split}: {report.images} images" + ("" if report.objects else ", no masks"))
            if report.objects:
                lines.append("  images with k objects: " + _histogram(report.objects))
                lines.append("  images with label k: " + _histogram(report.label_images))
        lines += [f"note: {notice}" for notice in manifest.notices]
        lines += [f"skipped: {name}" for name in manifest.skipped]
        lines += [f"WRONG: {finding}" for finding in self.findings]
        lines.append("ok" if self.ok else f"{len(self.findings)} findings")
        return lines


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
            with open(folder / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            findings.append(f"cannot read {name}: {error.strerror}")
            continue
        if found != digest:
            findings.append(f"{name} was changed: sha256 {found[:12]}..., the manifest says {digest[:12]}...")
    expected = {MANIFEST} | {make(split) for split in manifest.counts for make in (image_file, mask_file)}
    if extra := sorted(path.name for path in folder.iterdir() if path.name not in expected):
        findings.append(f"files that do not belong here: {some_of(extra)}")
    return findings


def _check_split(dataset: PackedDataset) -> tuple[SplitReport, list[str]]:
    label_images = np.zeros(IGNORE + 1, np.int64)  # index 0 = ignore, label + 1 otherwise
    objects = np.zeros(IGNORE, np.int64)
    without_foreground: list[str] = []
    for start in range(0, len(dataset), _PIECE):
        indices = np.arange(start, min(start + _PIECE, len(dataset)))
        batch = dataset.batch(indices)
        if "mask" not in batch:
            break
        present = np.zeros((len(indices), IGNORE + 1), dtype=bool)
        for row, mask in zip(present, batch["mask"].numpy(), strict=True):
            row[np.unique(mask) + 1] = True
        label_images += present.sum(axis=0)
        objects += np.bincount(present[:, 2:].sum(axis=1), minlength=len(objects))
        # A foreground mask that is all or nothing cannot be scored.
        one_sided = present[:, 1:3].sum(axis=1) < 2
        without_foreground += [str(index) for index in indices[one_sided]]
    report = SplitReport(
        images=len(dataset),
        label_images={int(index) - 1: int(label_images[index]) for index in np.flatnonzero(label_images)},
        objects={int(count): int(objects[count]) for count in np.flatnonzero(objects)},
    )
    return report, _label_findings(dataset, report, without_foreground)


def _label_findings(dataset: PackedDataset, report: SplitReport, without_foreground: list[str]) -> list[str]:
    if not report.label_images:
        return []
    findings = []
    known = CATALOG.get(dataset.manifest.name)
    allowed = {} if known is None else known.highest_label
    highest = allowed.get(dataset.split, allowed.get("*"))
    found = max(report.label_images)
    if highest is not None and found > highest:
        findings.append(f"{dataset.split}: label {found} occurs, the highest of {dataset.manifest.name} is {highest}")
    if dataset.manifest.task == "foreground" and without_foreground:
        findings.append(
            f"{dataset.split}: {len(without_foreground)} masks are all background or all foreground: "
            f"images {some_of(without_foreground)}"
        )
    return findings


def _histogram(counts: dict[int, int]) -> str:
    return ", ".join(f"{'ignore' if key < 0 else key}: {count}" for key, count in counts.items())
