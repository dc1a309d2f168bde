"""The page of concepts: for each slot what it binds, what lies there, which slots are alike, and a field to name it.

One self-contained HTML file, written from plain data as `boqsa.training.concepts` makes it (RUN/concepts.json) and from
pictures. It needs no other file and no network; a small script turns names that are typed into a command.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from PIL import Image

from boqsa.reports.elements import document, figure, image, number, section, table, with_code
from boqsa.reports.naming import NAMING_STYLE, name_field, naming_bar
from boqsa.reports.palette import slot_colours
from boqsa.reports.png import png_bytes
from boqsa.reports.stylesheet import CONCEPTS_STYLE, STYLESHEET

TITLES = {
    "kind": "Kind of its objects",
    "true_colour": "Paint of its objects",
    "colour": "Colour of its objects",
    "size": "Size of its objects",
    "true_position": "Where its objects stand on the floor",
    "position": "Where its objects are in the image",
    "label": "Label of its objects",
    "truth": "What its pixels are",
    "pixel_colour": "Colour of its pixels",
}
"""Attributes as people read them, in the order in which they are shown."""

_NOUNS = {
    "kind": "kind",
    "true_colour": "paint",
    "colour": "colour",
    "size": "size",
    "true_position": "place on the floor",
    "position": "place in the image",
    "label": "label",
}
_MOST_CHIPS = 4
_INTRODUCTION = (
    "Each slot of this model competes for every image, and mostly wins the same kind of thing. Which kind, nobody told "
    "it, and a name is for you to give: look at what a slot binds, type a name beside its number, and store the names "
    "with the run. `boqsa segment` and the files it writes then use them."
)
_METHOD = (
    "A *region* is what one slot owns of one image, if that is at least 1/128 of the image. The strength of its "
    "binding is confidence times likeness, 0 to 1: confidence is the mean of the slot's mask where it is the largest "
    "one, likeness the cosine similarity of the slot vector to the mean vector of this slot. *Area* is the mean share "
    "of the images with a region that it owns, *border* that of the border of all images. *Its objects* are those "
    "that its regions share most pixels with. The bars are shares of them, the thin marks the shares of all objects of "
    "the set. What stands out is at least ten points and four standard errors above the whole set. A slot is taken for "
    "the background's if it owns a quarter of the images' border or more, and not less than of the images."
)


class RegionPictures(NamedTuple):
    """A region as it is shown."""

    cut_out: Image.Image
    """Around the region, with the rest dimmed."""
    in_place: Image.Image
    """The whole image with an outline."""


def concepts_html(
    found: Mapping[str, Any],
    *,
    names: Mapping[int, str],
    mean_masks: Sequence[Image.Image],
    regions: Mapping[tuple[int, int], RegionPictures],
) -> str:
    """The page as text.

    Args:
        found: As in RUN/concepts.json.
        names: Names that slots have already.
        mean_masks: A picture a slot.
        regions: Pictures by index of the image and slot, of all that `found` names.

    Returns:
        A whole HTML document.
    """
    body = [
        _header(found),
        "<main>",
        section("All slots", _overview(found, names), _information(found)),
        *(_slot(one, found, names, mean_masks[one["slot"]], regions) for one in found["slots"]),
        section("How to read this", f"<p>{_emphasised(_METHOD)}</p>", _provenance(found)),
        "</main>",
        naming_bar(found["run"], len(found["slots"])),
    ]
    return document(f"{found['recipe']}: what each slot stands for", body, STYLESHEET + CONCEPTS_STYLE + NAMING_STYLE)


def _header(found: Mapping[str, Any]) -> str:
    dataset = found["dataset"]
    about = (
        f"Recipe `{found['recipe']}`, seed {found['seed']}, checkpoint `{found['checkpoint']}` of step "
        f"{number(found['step'])}, on {number(found['images'])} images of {dataset['name']}, split {dataset['split']}"
    )
    warning = f'<p class="warning">{with_code(found["warning"])}</p>' if found.get("warning") else ""
    return (
        f'<header><h1>What each slot stands for</h1>\n<p class="quiet">{with_code(about)}</p>\n{warning}'
        f'<p class="lead">{with_code(_INTRODUCTION)}</p></header>'
    )


def _overview(found: Mapping[str, Any], names: Mapping[int, str]) -> str:
    """A row a slot; narrow screens stack the cells."""
    heads = ["Slot", "in images", "area", "border", "confidence", "stands out"]
    rows = []
    for one in found["slots"]:
        slot = one["slot"]
        cells = [
            percent(one["images"] / found["images"]),
            percent(one["area"]),
            percent(one["border"]),
            f"{one['confidence']:.2f}" if one["images"] else "",
        ]
        rows.append(
            f'<th scope="row"><a href="#slot{slot}">{_swatch(slot)}Slot {slot}</a> '
            f'<span class="quiet" data-name-of="{slot}">{escape(names.get(slot, ""))}</span></th>'
            + "".join(
                f'<td class="number" data-label="{head}">{escape(text)}</td>'
                for head, text in zip(heads[1:], cells, strict=False)
            )
            + f'<td class="words" data-label="stands out">{_chips(one, found)}</td>'
        )
    return f'<div class="overview">{table(heads, rows)}</div>'


def _information(found: Mapping[str, Any]) -> str:
    """Which attribute a slot's number tells most about, in a sentence."""
    measured = [(name, found["information"].get(name)) for name in TITLES]
    known = sorted(
        [(name, value) for name, value in measured if value is not None and not math.isnan(value)],
        key=lambda entry: -entry[1],
    )
    if not known:
        return ""
    listed = ", ".join(f"{_NOUNS[name]} {value:.2f}" for name, value in known)
    sentence = (
        f"What a slot's number says about its object, as normalised mutual information from 0 (nothing) to 1: {listed}."
    )
    return f'<p class="note">{escape(sentence)}</p>'


def _slot(
    one: Mapping[str, Any],
    found: Mapping[str, Any],
    names: Mapping[int, str],
    mean_mask: Image.Image,
    regions: Mapping[tuple[int, int], RegionPictures],
) -> str:
    slot, images = one["slot"], found["images"]
    head = (
        f'<div class="head"><h2>{_swatch(slot)}Slot {slot} '
        f'<span class="quiet" data-name-of="{slot}">{escape(names.get(slot, ""))}</span></h2>'
        f"{name_field(slot, names, _hint(one, found))}</div>"
    )
    if not one["images"]:
        nothing = f"It owns no region in any of the {number(images)} images."
        return f'<section class="slot" id="slot{slot}">{head}<p>{nothing}</p></section>'
    facts = [
        ("in images", f"{percent(one['images'] / images)} ({number(one['images'])} of {number(images)})"),
        ("area there", percent(one["area"])),
        ("mean place", one["place"]),
        ("border", percent(one["border"]) + (", so background" if one["is_background"] else "")),
        ("confidence", f"{one['confidence']:.2f}"),
    ]
    if found["objects"]:
        share = percent(one["on_objects"] / one["images"])
        facts.append(("on an object", f"{share} of its regions" + (f", IoU {one['iou']:.2f}" if share != "0%" else "")))
    listed = "".join(f"<dt>{title}</dt><dd>{escape(value)}</dd>" for title, value in facts)
    words = f"Mean mask of slot {slot}, up to {one['mean_mask_most']:.2f}"
    side = figure(image(png_bytes(mean_mask), words), f"Mean mask, up to {one['mean_mask_most']:.2f}", "mean")
    parts = [
        head,
        f'<div class="about">{side}<div><dl class="facts">{listed}</dl>{_stands_out(one, found)}'
        f"{_neighbours(one, names)}</div></div>",
        _gallery("Binds most strongly", "strength", one["strongest"], regions, names, cut_out=True),
        _gallery("What else it takes, from strong to weak", "strength", one["spread"], regions, names),
        _gallery("Nearest regions of other slots", "similarity", one["nearest"], regions, names, owner=True),
        _shares(one, found),
    ]
    return f'<section class="slot" id="slot{slot}">{"".join(parts)}</section>'


def _stands_out(one: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    chips = _chips(one, found)
    return f'<p class="line"><span class="quiet">Stands out</span> {chips}</p>' if chips else ""


def _chips(one: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    chips = ['<span class="chip">background</span>'] if one["is_background"] else []
    chips += [
        f'<span class="chip">{escape(class_name(notable, found))} '
        f"<small>{percent(notable['share'])}, all {percent(notable['of_all'])}</small></span>"
        for notable in one["notable"][:_MOST_CHIPS]
        if not one["is_background"]
    ]
    return " ".join(chips)


def _hint(one: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What stands in the empty field: a guess, from what stands out, or else from where the slot is."""
    if one["is_background"]:
        return "background?"
    words = [class_name(notable, found) for notable in one["notable"][:2]]
    if not words and one["place"] not in ("", "centre"):
        words = [one["place"]]
    return f"{', '.join(words)}?" if words else "a name"


def class_name(notable: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What stands out, in words: the class, and of a label, which is a bare number, that it is one."""
    name = str(found["classes"][notable["attribute"]][notable["label"]])
    return f"label {name}" if notable["attribute"] == "label" else name


def _neighbours(one: Mapping[str, Any], names: Mapping[int, str]) -> str:
    links = [
        f'<a class="chip" href="#slot{other["slot"]}">{_swatch(other["slot"])}'
        f"{escape(names.get(other['slot'], '') or 'slot ' + str(other['slot']))} "
        f"<small>{other['similarity']:.2f}</small></a>"
        for other in one["neighbours"][:4]
    ]
    title = "Slots with the most similar vectors"
    return f'<p class="line"><span class="quiet">{title}</span> {" ".join(links)}</p>' if links else ""


def _gallery(
    title: str,
    value: str,
    listed: Sequence[Mapping[str, Any]],
    regions: Mapping[tuple[int, int], RegionPictures],
    names: Mapping[int, str],
    *,
    cut_out: bool = False,
    owner: bool = False,
) -> str:
    """Pictures in a row, each with its image and its value; with `owner`, whose they are."""
    if not listed:
        return ""
    tiles = []
    for region in listed:
        pictures = regions[region["image"], region["slot"]]
        called = f"{region['image']}" + (f", {region['name']}" if region.get("name") else "")
        words = f"image {called}"
        shown = image(png_bytes(pictures.cut_out), f"Region of slot {region['slot']} in {words}") if cut_out else ""
        shown += image(png_bytes(pictures.in_place), f"The whole {words}")
        whose = ""
        if owner:
            slot = region["slot"]
            whose = f"{_swatch(slot)}{escape(names.get(slot, '') or 'slot ' + str(slot))}<br>"
        tiles.append(
            f'<figure title="{escape(words)}">{shown}'
            f"<figcaption>{whose}<b>{region['value']:.2f}</b> #{region['image']}</figcaption></figure>"
        )
    small = f'<small class="quiet">{value}, #image</small>'
    return f'<h3>{escape(title)} {small}</h3><div class="gallery">{"".join(tiles)}</div>'


def _shares(one: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """For each attribute the shares of its classes beside those of the whole set."""
    own = {**one["attributes"], **one["pixels"]}
    of_all = {**found["attributes"], **found["pixels"]}
    panels = [
        _panel(TITLES[name], found["classes"][name], own[name], of_all[name], one["slot"])
        for name in TITLES
        if name in own and sum(own[name])
    ]
    return f'<h3>What lies there</h3><div class="panels">{"".join(panels)}</div>' if panels else ""


def _panel(title: str, classes: Sequence[str], own: Sequence[int], of_all: Sequence[int], slot: int) -> str:
    rows = []
    for name, count, all_count in zip(classes, own, of_all, strict=True):
        if not all_count:
            continue
        share, expected = count / sum(own), all_count / sum(of_all)
        rows.append(
            f'<tr><th scope="row">{escape(name)}</th>'
            f'<td class="track"><span style="width:{100 * share:.1f}%;background:{_colour(slot)}"></span>'
            f'<i style="left:{100 * expected:.1f}%"></i></td>'
            f"<td>{percent(share)}</td><td>{percent(expected)}</td><td>{number(int(count))}</td></tr>"
        )
    heads = "<tr><th></th><th></th><th>slot</th><th>all</th><th>count</th></tr>"
    return (
        f'<table class="shares"><caption>{escape(title)}</caption><thead>{heads}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _provenance(found: Mapping[str, Any]) -> str:
    command = found["command"] or f"boqsa concepts {shlex.quote(found['run'])}"
    made = f"Made by `{command}`. The numbers are in `{found['numbers']}` beside this file."
    return f'<p class="note">{with_code(made)}</p>'


def percent(share: float | None) -> str:
    """A share as people read it; what is not nothing is not 0%, and what has no value is empty."""
    if share is None or math.isnan(share):
        return ""
    if share > 0 and not round(100 * share):
        return "<1%"
    return f"{share:.0%}"


def _emphasised(text: str) -> str:
    """Text in which *starred* pieces are emphasised."""
    pieces = escape(text).split("*")
    return "".join(f"<em>{piece}</em>" if index % 2 else piece for index, piece in enumerate(pieces))


def _swatch(slot: int) -> str:
    return f'<span class="swatch" style="background:{_colour(slot)}"></span>'


def _colour(slot: int) -> str:
    red, green, blue = slot_colours(slot + 1)[slot]
    return f"rgb({red},{green},{blue})"
