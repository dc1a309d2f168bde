"""The report of a run: one HTML file that carries its pictures, for a reader who has never heard of slots.

It is written from plain data, as in RUN/metrics.json and RUN/log.jsonl. Any block may be missing and any
number may be None or NaN: it is then shown as not measured. The file needs no script, no other file and no
network.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from boqsa.atomic import write_text
from boqsa.reports.curves import loss_curve, score_curve, series, slot_use_bars
from boqsa.reports.elements import (
    block,
    cell,
    document,
    duration,
    facts,
    figure,
    image,
    is_measured,
    list_of,
    number,
    row_header,
    section,
    table,
    with_code,
)
from boqsa.reports.explanations import (
    BASELINES,
    DIAGNOSTICS,
    ERRORS,
    LEFT_OUT,
    PICTURES,
    RECONSTRUCTIONS,
    SCORES,
    VERDICTS,
    Explanation,
)
from boqsa.reports.masks import MASKS, main_masks
from boqsa.reports.png import png_bytes
from boqsa.reports.stylesheet import STYLESHEET

_INTRODUCTION = (
    "An image goes in, a few <em>slots</em> compete for its pixels, and every pixel comes out owned by one "
    "slot. The slots learn this only by {task}: nobody told them what "
    "an object is. Labels were used for the scores below, and for nothing else."
)
_PAINTING = "painting the image again, each its own part"
_FORETELLING = "helping to foretell a code of the image, token by token"
_HEADLINES = (
    *("ari_fg", "msc_fg", "ap", "pq", "iou", "dice", "border_iou", "fixed_iou", "ari", "background_in_two_slots"),
    *("precision", "recall"),
)
_ONLY_SOME = ("half_split", "slot_information", "update_spectral_norm", "query_gradient_norm")
"""Signs that many models do not have: left out, not shown as missing."""
_CHECKPOINTS = {"last": "the last step", "best_loss": "the step with the lowest validation loss"}


def report_html(
    *,
    recipe_json: str,
    metrics: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]] = (),
    pictures: Mapping[str, Image.Image] | None = None,
    next_steps: Sequence[str] = (),
) -> str:
    """The report as text.

    Args:
        recipe_json: The recipe as it was run, shown as it is.
        metrics: As in RUN/metrics.json.
        log: Rows of RUN/log.jsonl, in order.
        pictures: By name. "segmentation" is what `segmentation_grid` drew; others are shown under their name.
        next_steps: Sentences on what to try; pieces in backquotes are set as code.

    Returns:
        A whole HTML document.
    """
    name = str(metrics.get("recipe") or "unknown")
    body = [
        _header(name, metrics),
        "<main>",
        section("How well it did", _cards(metrics)),
        *_pictures(pictures or {}, name),
        section("All scores", _score_tables(metrics)),
        section("How it learned", _curves(log)),
        section("Is it collapsed?", _diagnosis(metrics, log)),
        section("What to try next", list_of(next_steps) if next_steps else ""),
        section("How to get this again", _provenance(metrics), _recipe(recipe_json)),
        "</main>",
        "<footer><p class='note'>boqsa implements BO-QSA: Jia, Liu and Huang, “Improving Object-centric "
        "Learning with Query Optimization”, ICLR 2023.</p></footer>",
    ]
    return document(f"{name}: what the slots found", body, STYLESHEET)


def write_report(
    path: str | Path,
    *,
    recipe_json: str,
    metrics: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]] = (),
    pictures: Mapping[str, Image.Image] | None = None,
    next_steps: Sequence[str] = (),
) -> None:
    """Write `report_html` of the same arguments to `path`; an old report stays whole until the new one is.

    Raises:
        InputError: if the folder of `path` does not exist or cannot be written to.
    """
    text = report_html(recipe_json=recipe_json, metrics=metrics, log=log, pictures=pictures, next_steps=next_steps)
    write_text(path, text)


def _header(name: str, metrics: Mapping[str, Any]) -> str:
    dataset = block(metrics, "dataset")
    about = [f"Recipe `{name}`"]
    if is_measured(metrics.get("seed")):
        about.append(f"seed {metrics['seed']}")
    if dataset.get("name"):
        images = f"{number(dataset['images'])} images of " if is_measured(dataset.get("images")) else ""
        about.append(f"scored on {images}{dataset['name']}, split {dataset.get('split', 'unknown')}")
        if dataset.get("partial"):
            about.append("a part of the published set")
        if dataset.get("leak"):
            about.append(str(dataset["leak"]))
    introduction = _INTRODUCTION.format(task=_FORETELLING if _has_tokens(metrics) else _PAINTING)
    return (
        f'<header><h1>What the slots found</h1>\n<p class="quiet">{with_code(", ".join(about))}</p>\n'
        f'<p class="lead">{introduction}</p></header>'
    )


def _has_tokens(metrics: Mapping[str, Any]) -> bool:
    """Whether the model is a transformer."""
    return bool(block(metrics, "scores", "last", "tokens"))


def _cards(metrics: Mapping[str, Any]) -> str:
    scores = {**main_masks(block(metrics, "scores", "last")), **_top_level(metrics)}
    keys = [key for key in _HEADLINES if key in scores] or ["ari_fg", "msc_fg"]
    return '<dl class="cards">' + "".join(_card(key, scores.get(key), metrics) for key in keys) + "</dl>"


def _card(key: str, value: Any, metrics: Mapping[str, Any]) -> str:
    bar = ""
    if isinstance(value, int | float) and is_measured(value):
        bar = f'<dd class="bar"><span style="width: {100 * min(max(float(value), 0.0), 1.0):.1f}%"></span></dd>'
    beside = "".join(
        f'<dd class="beside">{escape(_baseline_title(name))}: {escape(number(values[key]))}</dd>'
        for name, values in _baselines(metrics).items()
        if is_measured(values.get(key))
    )
    kind = "" if is_measured(value) else ' class="missing"'
    shown = f"<dd{kind}>{escape(number(value))}</dd>"
    return f'<div class="card"><dt>{SCORES[key].title}</dt>{shown}{bar}{beside}</div>'


def _top_level(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: metrics[key] for key in SCORES if is_measured(metrics.get(key))}


def _score_tables(metrics: Mapping[str, Any]) -> str:
    scores = block(metrics, "scores")
    parts = []
    for checkpoint in [name for name in _CHECKPOINTS if name in scores] or ["last"]:
        measured = block(scores, checkpoint)
        columns = {title: block(measured, masks) for masks, title in MASKS.items()}
        if checkpoint == "last":
            main = next((title for title, values in columns.items() if values), next(iter(columns)))
            columns[main] = {**columns[main], **_top_level(metrics)}
            columns |= {_baseline_title(name): values for name, values in _baselines(metrics).items()}
        compared = _comparison("Score", columns, SCORES) or "<p>The masks were not measured: no labels.</p>"
        content = compared + _left_out(columns) + _errors(measured)
        title = f"Weights of {_CHECKPOINTS[checkpoint]}"
        if checkpoint == "last":
            parts.append(f"<h3>{title}</h3>{content}{_about_baselines(metrics)}")
        else:
            parts.append(f"<details><summary>{title}</summary>{content}</details>")
    return "".join(parts)


def _errors(scores: Mapping[str, Any]) -> str:
    """Reconstruction errors of a checkpoint, and how many tokens stand for the pictures."""
    tokens, generated = block(scores, "tokens"), block(scores, "reconstruction_generated")
    titles = RECONSTRUCTIONS if tokens else {"reconstruction": "Error"}
    if tokens:
        titles = {**titles, "reconstruction": "dVAE"}
    table_ = _comparison("Reconstruction", {title: block(scores, name) for name, title in titles.items()}, ERRORS)
    notes = []
    if is_measured(generated.get("images")):
        notes.append(f"{titles['reconstruction_generated']}: first {number(generated['images'])} images.")
    if tokens:
        notes.append(
            f"Tokens: {number(tokens.get('used'))} of {number(tokens.get('vocabulary'))} are used, perplexity "
            f"{number(tokens.get('perplexity'))} (all equally often: as many as are used; always the same one: 1)."
        )
    return table_ + (f'<p class="note">{escape(" ".join(notes))}</p>' if notes else "")


def _comparison(head: str, columns: Mapping[str, Mapping[str, Any]], known: Mapping[str, Explanation]) -> str:
    """A row for each known number that any column has, a column for each source that has any of them."""
    present = {title: values for title, values in columns.items() if any(key in values for key in known)}
    rows = [
        row_header(explanation.title, explanation.meaning, f"({explanation.scale})")
        + "".join(cell(values.get(key), title) for title, values in present.items())
        for key, explanation in known.items()
        if any(key in values for values in present.values())
    ]
    return table([head, *present], rows) if rows else ""


def _left_out(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """How many images had nothing to score; labels alone decide that, so the first masks speak for all."""
    counts = next((block(values, "left_out") for values in columns.values() if block(values, "left_out")), {})
    listed = [
        f"{SCORES[key].title if key in SCORES else LEFT_OUT.get(key, key)}: {number(count)}"
        for key, count in counts.items()
        if count
    ]
    if not listed:
        return ""
    sentence = f"Images with nothing to score, left out of the mean: {', '.join(listed)}."
    return f'<p class="note">{escape(sentence)}</p>'


def _baselines(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: block(metrics, "baselines", name) for name in block(metrics, "baselines")}


def _baseline_title(name: str) -> str:
    return BASELINES.get(name, name)


def _about_baselines(metrics: Mapping[str, Any]) -> str:
    return "".join(
        f'<p class="note">{escape(_baseline_title(name))}: {escape(str(values["what"]))}</p>'
        for name, values in _baselines(metrics).items()
        if values.get("what")
    )


def _pictures(pictures: Mapping[str, Image.Image], name: str) -> list[str]:
    sections = []
    for key, picture in pictures.items():
        title, caption = PICTURES.get(key, (key, ""))
        content = f'<div class="scroll">{image(png_bytes(picture), f"{title}: scenes and masks of {name}")}</div>'
        sections.append(section(title, figure(content, caption, "wide")))
    return sections


def _curves(log: Sequence[Mapping[str, Any]]) -> str:
    figures = []
    if loss := loss_curve(log):
        steps, losses = series([row for row in log if row.get("event") == "step"], "loss")
        first, last = number(losses[0].item()), number(losses[-1].item())
        words = f"Training loss from {first} to {last} in {int(steps[-1]):,} steps."
        meaning = "What training minimises. It says how well pictures are painted, not whether objects are found."
        figures.append(figure(image(loss, words), f"{words} {meaning}"))
    if scores := score_curve(log):
        words = "Scores on the validation images during training."
        meaning = "They were watched and not used: no step was chosen by them."
        figures.append(figure(image(scores, words), f"{words} {meaning}"))
    return f'<div class="curves">{"".join(figures)}</div>' if figures else ""


def _diagnosis(metrics: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> str:
    logged: Mapping[str, Any] = next((row for row in reversed(log) if row.get("event") == "diagnostics"), {})
    trained: Mapping[str, Any] = next((row for row in reversed(log) if row.get("event") == "step"), {})
    measured = {**logged, **block(metrics, "scores", "last", "diagnostics")}
    if not measured:
        return "<p>Not measured.</p>"
    measured["query_gradient_norm"] = trained.get("query_gradient_norm")  # of training: an evaluation has no gradient
    parts = []
    if (word := measured.get("verdict")) is not None:
        tone, sentence = VERDICTS.get(word, ("fair", str(word)))
        parts.append(f'<p class="verdict {tone}">{escape(sentence)}</p>')
    parts += [f'<p class="warning">{with_code(str(warning))}</p>' for warning in measured.get("warnings") or ()]
    parts.append("<p>The loss cannot tell. These numbers watch for the usual failures; all but one need no labels.</p>")
    absent = [name for name in _ONLY_SOME if measured.get(name) is None]
    watched = {name: explanation for name, explanation in DIAGNOSTICS.items() if name not in absent}
    parts.append(_comparison("Sign", {"Value": measured}, watched))
    area = measured.get("mask_area")
    if isinstance(area, Sequence) and not isinstance(area, str) and (bars := slot_use_bars(area)):
        words = "Mean share of the picture that each slot owns: " + ", ".join(f"{share:.0%}" for share in area)
        parts.append(figure(image(bars, words), f"{words}. The largest usually holds the background.", "curves alone"))
    return "".join(parts)


def _provenance(metrics: Mapping[str, Any]) -> str:
    dataset, training, machine = (block(metrics, name) for name in ("dataset", "training", "machine"))
    rate = training.get("images_per_second")
    values = {
        "Command": f"`{metrics['command']}`" if metrics.get("command") else None,
        "Recipe": f"`{metrics.get('recipe') or 'unknown'}`, hash `{metrics.get('recipe_hash') or 'unknown'}`",
        "Seed": metrics.get("seed"),
        "Data": ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in dataset.items() if value) or None,
        "Steps": training.get("steps"),
        "Training time": duration(training.get("seconds")),
        "Speed": f"{number(rate)} images per second" if is_measured(rate) else None,
        "Machine": ", ".join(f"{key} {value}" for key, value in machine.items()) or None,
    }
    return facts({title: number(value) for title, value in values.items()})


def _recipe(recipe_json: str) -> str:
    return f"<details><summary>The whole recipe</summary><pre>{escape(recipe_json)}</pre></details>"
