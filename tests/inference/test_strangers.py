"""Runs and models that a stranger made: nothing is executed, nothing outside is read or written, nothing is filled."""

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import boqsa
from boqsa.errors import RecipeError, RunError
from boqsa.inference.load import build_model
from boqsa.inference.run import (
    CHECKPOINTS,
    MANIFEST,
    MODEL,
    RECIPE,
    older_names,
    read_manifest,
    read_recipe,
    refuse_links,
    resumable_folders,
    sha256,
)
from boqsa.plain import MOST_JSON_BYTES, parse_json, read_small_text
from boqsa.recipes import Recipe
from boqsa.recipes.limits import MOST_KEPT


def last(run: Path) -> Path:
    return run / CHECKPOINTS / "last"


def rewrite(path: Path, **values: Any) -> None:
    """Change the content of a JSON file, at its top."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def digest_again(folder: Path, *names: str) -> None:
    """A stranger gives the right checksums for whatever the files hold."""
    rewrite(folder / MANIFEST, sha256={name: sha256(folder / name) for name in names})


@pytest.mark.parametrize("name", ["../../../secret", "/etc/hostname", "sub/file", "..", ""])
def test_a_manifest_names_files_of_its_own_folder_alone(tmp_path, run, name):
    (tmp_path / "secret").write_text("mine")
    folder = last(run)
    digests = {MODEL: sha256(folder / MODEL), name: "00"}
    rewrite(folder / MANIFEST, sha256=digests)
    with pytest.raises(RunError, match="is no file of it"):
        read_manifest(folder)


def test_weights_without_a_checksum_are_not_taken(run):
    rewrite(last(run) / MANIFEST, sha256={})
    with pytest.raises(RunError, match=r"has no model\.safetensors"):
        boqsa.load(run)


def test_links_and_pipes_in_a_checkpoint_are_not_followed(tmp_path, run):
    path = last(run) / MODEL
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="is no file of it"):
        boqsa.load(run)
    path.unlink()
    os.mkfifo(path)  # opening it would wait for ever
    with pytest.raises(RunError, match="is no file of it"):
        boqsa.load(run)
    for name in (last(run) / MANIFEST, run / RECIPE):
        name.unlink()
        os.mkfifo(name)
        with pytest.raises(RunError):
            read_manifest(last(run)) if name.name == MANIFEST else read_recipe(run)


@pytest.mark.parametrize("place", ["log.jsonl", ".lock", "pictures", CHECKPOINTS, f"{CHECKPOINTS}/best_loss"])
def test_a_link_in_a_run_is_refused_before_anything_is_written_through_it(tmp_path, run, place):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    if (run / place).exists():
        (run / place).rename(tmp_path / "moved")
    (run / place).symlink_to(tmp_path / "thesis", target_is_directory=True)
    with pytest.raises(RunError, match="is a link"):
        refuse_links(run)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "mine"


def test_the_run_folder_itself_may_be_a_link(tmp_path, run):
    (tmp_path / "here").symlink_to(run, target_is_directory=True)
    refuse_links(tmp_path / "here")
    assert boqsa.load(tmp_path / "here") is not None


@pytest.mark.parametrize("place", [MOST_KEPT, 999_999_999])
def test_a_checkpoint_of_an_absurd_number_is_none(run, place):
    """Resuming would write down the names of all before it."""
    oldest = last(run).with_name(older_names(MOST_KEPT)[-1])
    oldest.mkdir()
    last(run).with_name(f"last-{place}").mkdir()
    assert resumable_folders(run) == [last(run), oldest]


HUGE = [
    ("num_slots", 10**9),
    ("iterations", 10**9),
    ("slot_size", 10**9),
    ("mlp_size", 900_000),  # alone within bounds, but not as a product
    ("encoder_channels", [900_000, 900_000]),
    ("encoder_channels", [4] * 1000),
    ("encoder_strides", [10**12]),
    ("decoder_grid", 10**6),
    ("num_slots", 10**40),
]


@pytest.mark.parametrize(("field", "value"), HUGE)
def test_absurd_sizes_are_refused_before_memory_is_taken(run, field, value):
    content = json.loads((run / RECIPE).read_text())
    content["model"][field] = value
    if field == "mlp_size":
        content["model"]["slot_size"] = 900_000
    if field == "encoder_channels":
        content["model"]["encoder_strides"] = [1] * len(value)
    (run / RECIPE).write_text(json.dumps(content))
    with pytest.raises(RecipeError, match="at most"):
        boqsa.load(run)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("train", "threads", 10**9),
        ("train", "keep_last", 10**9),
        ("data", "scene_count", 10**15),
        ("data", "image_size", 10**6),
        ("data", "name", "../../home"),
        ("data", "test_split", "../test"),
        ("", "seed", 2**64),
        ("", "name", "\x1b[2Jgone"),
        ("", "name", "x" * 10_000),
    ],
)
def test_other_fields_out_of_bounds_are_refused(recipe, section, field, value):
    content = json.loads(recipe.to_json())
    (content[section] if section else content)[field] = value
    with pytest.raises(RecipeError, match=field):
        Recipe.from_json(json.dumps(content))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["learning_rate", "clip_norm", "least_crop", "steps"])
def test_numbers_that_are_none_are_refused(recipe, number, field):
    content = json.loads(recipe.to_json())
    content["train"][field] = "HERE"
    with pytest.raises(RecipeError, match=field):
        Recipe.from_json(json.dumps(content).replace('"HERE"', number))


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "1" * 100_000, "\x00", ""])
def test_text_that_breaks_a_parser_is_one_error(run, text):
    with pytest.raises(ValueError):
        parse_json(text)
    with pytest.raises(RecipeError, match="not JSON"):
        Recipe.from_json(text)
    (last(run) / MANIFEST).write_text(text)
    with pytest.raises(RunError, match="not a whole checkpoint"):
        read_manifest(last(run))


def test_a_file_of_gigabytes_is_no_recipe(run):
    os.truncate(run / RECIPE, MOST_JSON_BYTES + 1)  # sparse: it takes no space here
    with pytest.raises(RunError, match="larger than"):
        read_recipe(run)
    with pytest.raises(ValueError, match="not a regular file"):
        read_small_text("/dev/zero")


@pytest.mark.parametrize(
    "values",
    [
        {"num_slots": 10**9},
        {"num_slots": "3"},
        {"image_size": 10**7},
        {"image_size": None},
        {"encoder_channels": [900_000, 900_000]},
        {"encoder_channels": {"a": 1}},
        {"drop_path": float("nan")},
        {"gradient": "__import__('os').system('true')"},
    ],
)
def test_the_configuration_of_a_saved_model_is_checked_like_a_recipe(tmp_path, model, values):
    model.save_pretrained(tmp_path / "saved")
    rewrite(tmp_path / "saved" / "config.json", **values)
    with pytest.raises(RunError, match="does not hold a model"):
        boqsa.load(tmp_path / "saved")


def lying(header: dict[str, Any], data: bytes, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        lying({"a": ENTRY}, bytes(8), length=2**60),
        lying({"a": ENTRY}, bytes(8), length=2**63),
        lying({"a": {**ENTRY, "data_offsets": [0, 2**40]}}, bytes(8)),
        lying({"a": {**ENTRY, "shape": [2**40]}}, bytes(8)),
        lying({"a": {**ENTRY, "shape": [2**62, 2**62]}}, bytes(8)),
        lying({"a": ENTRY, "b": ENTRY}, bytes(8)),
        lying({"a": {**ENTRY, "data_offsets": [8, 0]}}, bytes(8)),
        lying({"a": {**ENTRY, "dtype": "object"}}, bytes(8)),
        b"",
        bytes(7),
    ],
)
def test_a_header_that_lies_about_sizes_is_refused(run, content):
    path = last(run) / MODEL
    path.write_bytes(content)
    digest_again(last(run), MODEL)
    with pytest.raises(RunError, match="cannot be read"):
        boqsa.load(run)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, "mixed"])
def test_weights_of_another_kind_of_number_are_refused(tmp_path, model, dtype):
    model.save_pretrained(tmp_path / "saved")
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name in list(weights)[: 1 if dtype == "mixed" else None]:
        weights[name] = weights[name].to(torch.float16 if dtype == "mixed" else dtype)
    save_file(weights, tmp_path / "saved" / MODEL)
    with pytest.raises(RunError, match="expected floating point of one kind"):
        boqsa.load(tmp_path / "saved")


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", ["model.safetensors", "trainer.pt"])
def test_code_in_a_checkpoint_is_not_executed(tmp_path, run, name):
    from boqsa.training.checkpoint import read_training

    folder = last(run)
    target = tmp_path / "executed"
    for content in ("torch", "pickle"):
        if content == "torch":
            torch.save({"step": 7, "optimizer": Hostile(target)}, folder / name)
        else:
            (folder / name).write_bytes(pickle.dumps(Hostile(target), protocol=2))
        digest_again(folder, *{MODEL, name})
        with pytest.raises(RunError):
            boqsa.load(run) if name == MODEL else read_training(folder)
    assert not target.exists()
    pickle.loads(pickle.dumps(Hostile(target)))
    assert target.exists(), "the file is hostile, where it is trusted"


def test_building_a_model_does_not_count_with_the_caller_s_random_numbers(recipe):
    torch.manual_seed(0)
    one = build_model(recipe)
    torch.manual_seed(0)
    other = type(one)(**one._hub_mixin_config)
    first, second = one.state_dict(), other.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
