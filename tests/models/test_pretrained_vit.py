"""The frozen encoder: which tokens it gives, of each architecture; what it refuses. Networks of random weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from boqsa.errors import InputError
from boqsa.models import PretrainedViT

Make = Callable[..., Path]
KINDS = [("ViT", 1), ("Dinov2", 1), ("Dinov2WithRegisters", 5), ("DINOv3ViT", 5)]


@pytest.fixture
def image() -> Tensor:
    return torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "leading"), KINDS)
def test_features_are_the_patches_of_the_last_block_before_the_norm(
    kind: str, leading: int, make_encoder: Make, image: Tensor
) -> None:
    import transformers

    registers = {"num_register_tokens": leading - 1} if leading > 1 else {}
    folder = make_encoder(kind, **registers)
    encoder = PretrainedViT.from_folder(folder)
    features = encoder(image)
    assert features.shape == (2, 16, 16)
    # What transformers itself calls the hidden states after the last block, of an image that was normalised by hand.
    network = transformers.AutoModel.from_pretrained(folder).eval()
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    with torch.no_grad():
        output = network((image.float() / 255 - mean) / std, output_hidden_states=True)
    torch.testing.assert_close(features, output.hidden_states[-1][:, leading:])
    assert not torch.isclose(features, output.last_hidden_state[:, leading:]).all(), "those are after the norm"


@pytest.mark.parametrize(("kind", "leading"), KINDS)
def test_patches_are_row_major_and_other_sizes_are_taken(
    kind: str, leading: int, make_encoder: Make, image: Tensor
) -> None:
    encoder = PretrainedViT.from_folder(
        make_encoder(kind, **({"num_register_tokens": leading - 1} if leading > 1 else {}))
    )
    large = torch.zeros(1, 3, 16, 24)
    change = []
    for row, column in ((0, 0), (1, 4), (3, 5)):
        spotted = large.clone()
        spotted[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
        moved = (encoder(spotted) - encoder(large)).norm(dim=-1)[0]
        assert moved.shape == (24,)
        change.append(int(moved.argmax()) == 6 * row + column)
    assert all(change)


def test_bytes_and_unit_floats_are_the_same_image(encoder_folder: Path, image: Tensor) -> None:
    encoder = PretrainedViT.from_folder(encoder_folder)
    torch.testing.assert_close(encoder(image), encoder(image.float() / 255))


def test_it_is_frozen(encoder_folder: Path, image: Tensor) -> None:
    encoder = PretrainedViT.from_folder(encoder_folder).train()
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder(image).requires_grad
    assert torch.equal(encoder(image), encoder(image))


def test_weights_tell_encoders_apart_and_places_do_not(
    encoder_folder: Path, make_encoder: Make, tmp_path: Path
) -> None:
    first = PretrainedViT.from_folder(encoder_folder)
    copy = PretrainedViT.from_folder(shutil.copytree(encoder_folder, tmp_path / "copy"))
    other = PretrainedViT.from_folder(make_encoder(seed=1))
    assert first.sha256 == copy.sha256 != other.sha256
    assert (first.name, copy.name) == (str(encoder_folder.resolve()), str((tmp_path / "copy").resolve()))


def test_half_precision_weights_compute_in_full(encoder_folder: Path, tmp_path: Path, image: Tensor) -> None:
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "half"))
    weights = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert PretrainedViT.from_folder(folder)(image).dtype == torch.float32


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(name: str, encoder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"has no {name}; name a folder that `transformers` wrote"):
        PretrainedViT.from_folder(folder)


def test_pickled_weights_are_not_read(encoder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="with its weights as safetensors"):
        PretrainedViT.from_folder(folder)


def test_weights_that_lack_a_block_are_not_filled_with_random_ones(encoder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    weights = load_file(folder / "model.safetensors")
    names = [name for name in weights if ".1." in name]
    assert names
    for name in names:
        del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"lacks {len(names)} weights of its config.json"):
        PretrainedViT.from_folder(folder)


def test_a_missing_pooler_does_not_matter(
    encoder_folder: Path, tmp_path: Path, image: Tensor, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    capfd.readouterr()
    encoder = PretrainedViT.from_folder(folder)
    assert capfd.readouterr() == ("", ""), "no bar and no warning"
    assert torch.equal(encoder(image), PretrainedViT.from_folder(encoder_folder)(image))


def test_code_of_the_folder_is_never_run(encoder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(InputError, match="holds no network that transformers can read"):
        PretrainedViT.from_folder(folder)
    assert not (tmp_path / "ran").exists()


def test_another_kind_of_network(tmp_path: Path) -> None:
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.BertModel(transformers.BertConfig(**sizes, vocab_size=10)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a 'bert'; vit, dinov2"):
        PretrainedViT.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        (
            {"hidden_size": 10**7},
            r"describes a network of 8e\+14 numbers, and model\.safetensors beside it has 2.73e",
        ),
        ({"intermediate_size": 10**9}, r"describes a network of 6.6e\+10 numbers"),
        ({"image_size": 10**8}, r"describes a network of 1e\+16 numbers"),
        ({"num_channels": 10**12}, r"describes a network of 2.56e\+14 numbers"),
        ({"num_hidden_layers": 100}, r"describes a network of 2.24e\+05 numbers"),
        ({"num_hidden_layers": 10**9}, "has num_hidden_layers 1000000000; at most 100 expected"),
        ({"num_labels": 1e9}, "has num_labels 1000000000; at most 100000 expected"),
        ({"hidden_size": 10**12}, r"holds no network that transformers can read \(Storage size calculation overflowed"),
        ({"hidden_size": -16}, "holds no network that transformers can read"),
        ({"patch_size": 0}, "holds no network that transformers can read"),
    ],
)
def test_a_configuration_of_terabytes_takes_no_memory(
    hostile: dict[str, int], reason: str, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    folder = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | hostile))
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda *_, **__: pytest.fail("memory is taken"))
    with pytest.raises(InputError, match=reason) as raised:
        PretrainedViT.from_folder(folder)
    assert "\n" not in str(raised.value)


def test_a_configuration_of_gigabytes_is_not_read(encoder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    with open(folder / "config.json", "r+b") as file:
        file.truncate(2**31)  # without taking room on the disk
    with pytest.raises(InputError, match=r"holds no network .* \(config\.json is larger than 64 MiB\)"):
        PretrainedViT.from_folder(folder)


def test_images_that_patches_do_not_cover(encoder_folder: Path) -> None:
    with pytest.raises(ValueError, match="images of 16x18 are no whole number of patches of 4 pixels"):
        PretrainedViT.from_folder(encoder_folder)(torch.zeros(1, 3, 16, 18))


def test_without_transformers_the_line_says_what_to_install(
    encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(InputError, match=r"need the package transformers; install it by `pip install 'boqsa\[features"):
        PretrainedViT.from_folder(encoder_folder)
