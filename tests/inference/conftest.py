"""A model small enough to run at once, and the pictures that people really have."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boqsa.atomic import write_text
from boqsa.inference.load import build_model, model_config
from boqsa.inference.run import CHECKPOINTS, RECIPE, write_checkpoint
from boqsa.recipes import DataRecipe, MixtureRecipe, Recipe, TransformerRecipe

MODEL = MixtureRecipe(
    num_slots=4,
    slot_size=8,
    mlp_size=8,
    encoder_channels=(8,),
    encoder_strides=(1,),
    decoder_channels=(8,),
    decoder_strides=(2,),
    decoder_grid=8,
)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe(name="tiny", data=DataRecipe(name="scenes", image_size=16), model=MODEL)


@pytest.fixture(scope="session")
def model(recipe):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        built = build_model(recipe).eval()
        with torch.no_grad():  # fresh masks are almost even; these tell slots apart
            for parameter in built.decoder.parameters():
                parameter.mul_(4)
    return built


@pytest.fixture(scope="session")
def transformer_recipe() -> Recipe:
    model = TransformerRecipe(
        num_slots=3,
        slot_size=8,
        mlp_size=8,
        vocab_size=10,
        width=8,
        blocks=2,
        heads=2,
        encoder_channels=(4, 4),
        encoder_strides=(1, 1),
    )
    return Recipe(name="tiny_transformer", data=DataRecipe(name="scenes", image_size=16), model=model)


@pytest.fixture(scope="session")
def transformer(transformer_recipe):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return build_model(transformer_recipe).eval()


@pytest.fixture(scope="session")
def _run(tmp_path_factory, recipe, model) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    write_checkpoint(run / CHECKPOINTS / "last", model, config=model_config(recipe), step=7, recipe_hash=recipe.hash)
    write_text(run / RECIPE, recipe.to_json())
    return run


@pytest.fixture
def run(_run, tmp_path) -> Path:
    """A run folder of one's own."""
    return Path(shutil.copytree(_run, tmp_path / "run"))


@pytest.fixture
def zoo(tmp_path) -> dict[str, Path]:
    """Whole pictures of strange sizes and modes, by what is strange about them."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "zoo"
    folder.mkdir()
    colours = Image.fromarray(rng.integers(0, 256, (24, 40, 3), dtype=np.uint8))
    alpha = Image.fromarray(rng.integers(0, 256, (24, 40), dtype=np.uint8))
    transparent = colours.quantize(16)
    transparent.info["transparency"] = 0
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures: dict[str, tuple[Image.Image, dict]] = {
        "one_pixel.png": (colours.crop((0, 0, 1, 1)), {}),
        "ribbon.png": (colours.resize((300, 7)), {}),
        "tower.png": (colours.resize((3, 200)), {}),
        "colours.jpg": (colours, {}),
        "rgba.png": (Image.merge("RGBA", [*colours.split(), alpha]), {}),
        "palette.png": (colours.quantize(16), {}),
        "transparent_palette.png": (transparent, {}),
        "grey.png": (alpha, {}),
        "grey_alpha.png": (Image.merge("LA", [alpha, alpha]), {}),
        "bits.png": (alpha.convert("1"), {}),
        "deep.png": (Image.fromarray(rng.integers(0, 65536, (24, 40), dtype=np.uint16)), {}),
        "cmyk.jpg": (colours.convert("CMYK"), {}),
        "turned.jpg": (colours, {"exif": exif}),
    }
    for name, (picture, options) in pictures.items():
        picture.save(folder / name, **options)
    return {name: folder / name for name in pictures}


@pytest.fixture
def broken(tmp_path) -> dict[str, Path]:
    """Files that only look like pictures, by what is wrong with them."""
    folder = tmp_path / "broken"
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    for kind in ("png", "jpeg"):
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, format=kind)
        (folder / f"truncated.{kind}").write_bytes(buffer.getvalue()[: buffer.tell() // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not a picture", encoding="utf-8")
    return {path.name: path for path in sorted(folder.iterdir())}
