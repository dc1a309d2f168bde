"""A trained run as a folder to share: weights, what made them, how well they do, and a card that says so in words.

    FOLDER/model.safetensors, config.json     what `boqsa.load` reads
    FOLDER/training_recipe.json               of the run, without folders and files of its owner's machine
    FOLDER/metrics.json                       of its test split, where it was evaluated
    FOLDER/names.json                         what its slots are called, where somebody named them
    FOLDER/README.md                          the model card of the hub
    FOLDER/manifest.json                      step, recipe hash, sha256 of each file

`boqsa.load` compares the digests before it reads anything else.
"""

import hashlib
import json
import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCardData

import boqsa
from boqsa.atomic import atomic_folder
from boqsa.data.catalog import CATALOG
from boqsa.errors import InputError, RunError, as_typed, first_line
from boqsa.inference.load import model_config
from boqsa.inference.names import NAMES, names_text, read_names
from boqsa.inference.run import CONFIG, MANIFEST, MODEL, checkpoint_folder, read_manifest, read_recipe, sha256
from boqsa.plain import read_json
from boqsa.recipes import FeaturesRecipe, Recipe
from boqsa.recipes.limits import is_plain_name

CARD, TRAINING_RECIPE, METRICS = "README.md", "training_recipe.json", "metrics.json"
_OF_ITS_OWNER = ("command", "damaged")
"""Entries of metrics that name folders of the machine where they were made."""
_PAPER = "Improving Object-Centric Learning with Query Optimization (ICLR 2023)"
_SHOWN = {
    "ari_fg": "ARI-FG",
    "msc_fg": "MSC-FG",
    "ari": "ARI",
    "iou": "IoU, best slot",
    "dice": "Dice, best slot",
    "border_iou": "IoU, off-border slot",
    "ap": "AP",
    "pq": "PQ",
    "mbo": "mBO",
    "mbo_class": "mBO of classes",
    "nv_ari": "NV-ARI",
}
_SELECTION = {"last": "the last step", "best_loss": "lowest held-out loss, without labels", "last-1": "an earlier step"}


def share(
    run: str | Path,
    out: str | Path,
    *,
    checkpoint: str = "last",
    seeds: Sequence[str | Path] = (),
    licence: str = "other",
) -> Path:
    """Write what others need to use a run, and to judge it.

    Args:
        run: The run folder.
        out: Folder to make; one that exists is replaced only if it was made by this function.
        checkpoint: Whose weights.
        seeds: Runs of the same recipe with other seeds, evaluated: the card then has means and spreads.
        licence: Of the weights, as the hub abbreviates it; "other" says nothing.

    Returns:
        The folder.

    Raises:
        RunError, RecipeError: if a run, the checkpoint, or the names of its slots cannot be used, or a seed is another
            recipe's.
        InputError: if `out` holds something else.
    """
    run, out = Path(run), Path(out)
    recipe = read_recipe(run)
    source = checkpoint_folder(run, checkpoint)
    manifest = read_manifest(source)
    metrics = _metrics(run)
    names = read_names(run, recipe.model.num_slots)
    others = [_of_other_seed(Path(other), recipe) for other in seeds]
    if others:
        if len({one["seed"] for one in others}) < len(others):
            raise RunError("--seeds names two runs of one seed; give each seed once.")
        if not metrics or {protocol_hash(one, recipe) for one in others} != {protocol_hash(metrics, recipe)}:
            raise RunError(
                "the runs of --seeds were not scored on the same data as this one; evaluate all of them alike."
            )
    _require_scores_of(metrics, checkpoint, manifest["step"], recipe, run)
    _require_own(out)
    with atomic_folder(out) as partial:
        for name in (MODEL, CONFIG):
            _copy(source / name, partial / name, manifest["sha256"].get(name))
        told_recipe = _without_places(recipe)
        (partial / TRAINING_RECIPE).write_text(told_recipe.to_json(), encoding="utf-8")
        if isinstance(recipe.model, FeaturesRecipe):  # its configuration names the encoder, too
            (partial / CONFIG).write_text(json.dumps(model_config(told_recipe), indent=2), encoding="utf-8")
        if metrics:
            told = {name: value for name, value in metrics.items() if name not in _OF_ITS_OWNER}
            (partial / METRICS).write_text(json.dumps(told, indent=2), encoding="utf-8")
        if names:
            (partial / NAMES).write_text(names_text(names), encoding="utf-8")
        card = card_of(
            recipe, metrics, others, names=names, checkpoint=checkpoint, step=manifest["step"], licence=licence
        )
        (partial / CARD).write_text(card, encoding="utf-8")
        files = sorted(path.name for path in partial.iterdir())
        whole = {
            "step": manifest["step"],
            "checkpoint": checkpoint,
            "recipe": recipe.hash,
            "boqsa": boqsa.__version__,
            "sha256": {name: sha256(partial / name) for name in files},
        }
        (partial / MANIFEST).write_text(json.dumps(whole, indent=2), encoding="utf-8")
    return out


def _without_places(recipe: Recipe) -> Recipe:
    """A recipe without folders and files of its owner's machine.

    Its hash is another one where the run began with the weights of an earlier run, which the card then says.
    """
    model = recipe.model
    if isinstance(model, FeaturesRecipe) and model.encoder is not None and not _is_on_the_hub(model.encoder):
        model = replace(model, encoder=None)  # its sha256 still tells which one it was
    train = replace(recipe.train, init_from=None, radiance=replace(recipe.train.radiance, perceptual_file=None))
    return replace(recipe, data=replace(recipe.data, root=None), model=model, train=train)


def _is_on_the_hub(encoder: str) -> bool:
    """Whether an encoder's name is `owner/name` of the hub, and no folder: one that exists is never looked up there."""
    parts = encoder.partition("@")[0].split("/")
    return len(parts) == 2 and all(map(is_plain_name, parts)) and not Path(encoder).exists()


def _copy(source: Path, target: Path, digest: str | None) -> None:
    """Copy a file of a checkpoint, if it is the one that its manifest knows, also while it was copied."""
    if source.is_symlink() or digest is None:
        raise RunError(f"{source.parent} is not a whole checkpoint: its manifest knows no file {source.name}.")
    shutil.copyfile(source, target)
    if sha256(target) != digest:
        raise RunError(f"{source} changed while it was copied, as by a run that still trains; share it again.")


def _require_own(out: Path) -> None:
    """Go on if `out` is absent, empty, or what an earlier call made and nobody added to."""
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    others = found - {MODEL, CONFIG, MANIFEST, TRAINING_RECIPE, METRICS, NAMES, CARD}
    if others or (found and TRAINING_RECIPE not in found):
        raise InputError(f"{out} has {min(others or found)}, which `boqsa share` did not make; choose another folder.")


def _require_scores_of(metrics: Mapping[str, Any], checkpoint: str, step: int, recipe: Recipe, run: Path) -> None:
    """Go on if the scores are of these weights and this recipe."""
    scored = metrics.get("scores", {}).get(checkpoint, {}).get("step", step)
    if metrics and (scored != step or metrics.get("recipe_hash", recipe.hash) != recipe.hash):
        raise RunError(
            f"{run / METRICS} is of step {scored}, and {checkpoint} is of step {step} now; type "
            f"`boqsa evaluate {as_typed(run)}`."
        )


def push(folder: str | Path, hub_id: str, *, private: bool = False) -> str:
    """Upload a folder of `share` in one commit.

    Returns:
        The name to load it by, pinned to that commit: `owner/name@revision`.

    Raises:
        InputError: if the hub refuses, or cannot be reached.
    """
    read_manifest(Path(folder))
    api = HfApi()
    try:
        api.create_repo(hub_id, private=private, exist_ok=True)
        if private and not api.model_info(hub_id).private:
            raise ValueError("it exists and is public; make it private there, or choose another name")
        commit = api.upload_folder(folder_path=folder, repo_id=hub_id, commit_message=f"boqsa {boqsa.__version__}")
    except Exception as error:  # each version of the hub's client has its own errors
        reason = first_line(error)
        raise InputError(
            f"{hub_id} could not be uploaded ({reason}); log in with `hf auth login`, and try again."
        ) from None
    return f"{hub_id}@{commit.oid}"


def protocol_hash(metrics: Mapping[str, Any], recipe: Recipe) -> str:
    """Of what a score depends on beside the model: task, data, split, size, iterations. Scores compare where it is
    equal."""
    where = metrics["dataset"]
    text = json.dumps(
        {
            "task": recipe.evaluate.task,
            "views": asdict(recipe.evaluate.radiance) if recipe.model.kind == "radiance" else None,
            "data": where["fingerprint"],
            "split": where["split"],
            "image_size": recipe.data.image_size,
            "iterations": metrics["iterations"],
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def card_of(
    recipe: Recipe,
    metrics: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]],
    *,
    names: Mapping[int, str],
    checkpoint: str,
    step: int,
    licence: str,
) -> str:
    """The model card: what the hub reads, then what people read."""
    entry = CATALOG.get(recipe.data.name)
    data = f"`{recipe.data.name}`" + (f": {entry.what}" if entry else "")
    parts = [
        f"---\n{_card_data(recipe, metrics, checkpoint, licence).to_yaml()}\n---",
        f"# {recipe.name}, seed {recipe.seed}",
        f"Splits a picture into {recipe.model.num_slots} slots, without labels. A {recipe.model.kind} model of "
        f"[boqsa](https://pypi.org/project/boqsa), which implements *{_PAPER}*.",
        "## Use",
        '```python\nimport boqsa\n\nsegmenter = boqsa.Segmenter.from_pretrained("OWNER/NAME@REVISION"'
        f'{_encoder_option(recipe)})\nsegmenter.predict("picture.jpg").labels\n```',
        *_about_encoder(recipe),
        *_names(names),
        "## Training",
        "\n".join(
            [
                f"- Data: {data}, {recipe.data.image_size}x{recipe.data.image_size}. "
                f"Licence of the data: {entry.licence if entry else 'unknown'}.",
                f"- Recipe `{recipe.name}`, hash `{recipe.hash}`, in `{TRAINING_RECIPE}`; step {step} of "
                f"{recipe.train.steps}, checkpoint `{checkpoint}` ({_SELECTION.get(checkpoint, 'chosen by labels')}).",
                *_beginning(recipe),
                *_effort(metrics),
            ]
        ),
        "## Scores",
        *_scores(recipe, metrics, others),
        "## Intended use and limits",
        "\n".join(
            [
                "- For research on object discovery, and for a first split of pictures like those it was trained on. "
                "Slots have no class, and what a slot takes for an object may be a part, a shadow or a region.",
                f"- There are {recipe.model.num_slots} slots, however many objects a picture has.",
                f"- Pictures are squeezed to {recipe.data.image_size}x{recipe.data.image_size}; small things are lost.",
                "- Not for decisions about people, and not tested for any use where a wrong mask does harm.",
            ]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _names(names: Mapping[int, str]) -> list[str]:
    """What slots were named, as names of others may be read wrong without; nothing if none was."""
    if not names:
        return []
    listed = ", ".join(f"{slot} {_plain(name)}" for slot, name in names.items())
    return [f"Slots that were named by what they take in most pictures: {listed}."]


def _plain(name: str) -> str:
    """A name that Markdown takes for nothing else."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~-])", r"\\\1", name)


def _encoder_option(recipe: Recipe) -> str:
    return ', encoder="DIR"' if isinstance(recipe.model, FeaturesRecipe) else ""


def _about_encoder(recipe: Recipe) -> list[str]:
    """Of a features model: which other network it needs, by its digest; where it lay is the owner's affair."""
    if not isinstance(recipe.model, FeaturesRecipe):
        return []
    return [
        "It needs the frozen encoder whose features it learned on, which is not part of these weights: a folder of "
        f"`transformers` whose `model.safetensors` has the sha256 `{recipe.model.encoder_sha256}`."
    ]


def _beginning(recipe: Recipe) -> list[str]:
    """That it did not begin with fresh weights; whose they were is the owner's affair, and the hash counts it."""
    if recipe.train.init_from is None:
        return []
    return [
        f"- It began with the weights of an earlier run: `train.init_from`, which is left out of `{TRAINING_RECIPE}`. "
        "The hash is that of the recipe with it."
    ]


def _effort(metrics: Mapping[str, Any]) -> list[str]:
    """How long it took, and where; nothing if that is not known."""
    trained = metrics.get("training", {})
    began = trained.get("started_on") or {}
    if not trained.get("seconds"):
        return []
    where = began.get("gpu") or began.get("device", "an unknown device")
    return [f"- {trained['seconds'] / 3600:.1f} hours on {where}, torch {began.get('torch', 'unknown')}."]


def _card_data(recipe: Recipe, metrics: Mapping[str, Any], checkpoint: str, licence: str) -> ModelCardData:
    scores = _of_checkpoint(metrics, checkpoint)
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=recipe.data.name,
            dataset_name=recipe.data.name,
            dataset_split=metrics["dataset"]["split"],
            metric_type=name,
            metric_name=title,
            metric_value=round(scores[name], 4),
        )
        for name, title in _SHOWN.items()
        if scores.get(name) is not None
    ]
    return ModelCardData(
        license=licence,
        library_name="boqsa",
        pipeline_tag="image-segmentation",
        tags=["object-centric-learning", "slot-attention", "unsupervised", "bo-qsa"],
        model_name=recipe.name,
        eval_results=results or None,
    )


def _scores(recipe: Recipe, metrics: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    if not metrics:
        return ["Not evaluated."]
    where, found = metrics["dataset"], metrics["scores"]
    names = [name for name in _SHOWN if any(name in _of_checkpoint(metrics, one) for one in found)]
    if "msc_fg" in names and "mbo" in names:
        names.remove("mbo")  # the same number under its other name
    if not names:
        return [f"{where['name']}, {where['split']} split: there are no masks to score against."]
    notes = ["part of the published set"] if where.get("partial") else []
    notes += [where["leak"]] if where.get("leak") else []
    notes += ["masks of {}x{} pixels".format(*where["mask_size"])] if "mask_size" in where else []
    rows = [
        [f"{one} ({_SELECTION.get(one, 'chosen by labels')})", *_cells(_of_checkpoint(metrics, one), names)]
        for one in found
    ]
    rows += [[f"*{one.replace('_', ' ')}*", *_cells(scores, names)] for one, scores in metrics["baselines"].items()]
    paragraphs = [
        f"{where['name']}, {where['split']} split: {where['images']} images{''.join(f'; {note}' for note in notes)}. "
        f"Protocol `{protocol_hash(metrics, recipe)}`: scores compare where this is equal. Baselines in italics; "
        "what is chosen by labels saw some.",
        _table(["checkpoint", *(_SHOWN[name] for name in names)], rows),
    ]
    if others:
        runs = [metrics, *others]
        seeds = ", ".join(str(one["seed"]) for one in runs)
        cells = []
        for name in names:
            found_values = [_of_checkpoint(one, "last").get(name) for one in runs]
            values = [value for value in found_values if value is not None]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}" if values else "")
        paragraphs += [
            f"Seeds {seeds}, checkpoint `last`, mean ± sample standard deviation:",
            _table([f"{len(runs)} runs", *(_SHOWN[name] for name in names)], [["this recipe", *cells]]),
        ]
    return paragraphs


def _of_checkpoint(metrics: Mapping[str, Any], checkpoint: str) -> Mapping[str, Any]:
    """The scores of its main masks: the decoder's, or those of attention where there are no others."""
    scores = metrics.get("scores", {}).get(checkpoint, {})
    found: Mapping[str, Any] = scores.get("decoder_masks") or scores.get("attention_masks") or {}
    return found


def _cells(scores: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return ["" if scores.get(name) is None else f"{scores[name]:.3f}" for name in names]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows])


def _metrics(run: Path) -> dict[str, Any]:
    """What `boqsa evaluate` wrote; nothing if it never ran.

    Raises:
        RunError: if the file is damaged.
    """
    if not (run / METRICS).is_file():
        return {}
    try:
        found: dict[str, Any] = read_json(run / METRICS)
        for name in ("dataset", "scores", "baselines", "iterations", "seed"):
            found[name]
        for name in ("name", "split", "images", "fingerprint"):
            found["dataset"][name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{run / METRICS} is damaged ({error}); type `boqsa evaluate {as_typed(run)}`.") from None
    return found


def _of_other_seed(run: Path, recipe: Recipe) -> dict[str, Any]:
    other = read_recipe(run)
    if other.seed == recipe.seed or replace(other, seed=recipe.seed).hash != recipe.hash:
        raise RunError(f"{run} is not the recipe {recipe.name} with another seed; leave it out of --seeds.")
    metrics = _metrics(run)
    if not metrics:
        raise RunError(f"{run} was not evaluated; type `boqsa evaluate {as_typed(run)}` first.")
    return metrics
