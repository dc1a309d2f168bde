"""`save_pretrained`, `from_pretrained` and `push_to_hub`, without a network."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import hub_mixin

import boqsa
from boqsa.models import MixtureModel, Noise, TransformerModel

SIZES = {
    "image_size": 16,
    "slot_size": 8,
    "mlp_size": 8,
    "encoder_channels": (8, 6),
    "encoder_strides": (1, 2),
    "decoder_channels": (8,),
    "decoder_strides": (2,),
}
TRANSFORMER_SIZES = {
    "image_size": 16,
    "num_slots": 5,
    "slot_size": 8,
    "mlp_size": 8,
    "vocab_size": 12,
    "width": 8,
    "blocks": 2,
    "heads": 2,
    "encoder_channels": (8, 6),
    "encoder_strides": (1, 2),
}
KINDS = ["learned", "shared_gaussian", "independent_gaussians"]


def outputs(model):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 16, 16, generator=generator)
    noise = Noise(queries=torch.randn(2, 5, 8, generator=generator))
    with torch.no_grad():
        output = model(image, noise=noise)
    return output.reconstruction, output.masks, output.slots, output.attention


@pytest.mark.parametrize("queries", KINDS)
def test_a_saved_model_is_the_same_bit_for_bit(tmp_path, queries):
    saved = MixtureModel(**SIZES, queries=queries, epsilon=1e-8, epsilon_form="entry", iterations=2).eval()
    saved.save_pretrained(tmp_path)
    for loaded in (MixtureModel.from_pretrained(tmp_path), boqsa.load(tmp_path)):
        assert not loaded.training
        for ours, theirs in zip(outputs(loaded), outputs(saved), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("queries", KINDS)
@pytest.mark.parametrize("features", ["image", "tokens"])
def test_a_saved_transformer_is_the_same_bit_for_bit(tmp_path, queries, features):
    saved = TransformerModel(
        **TRANSFORMER_SIZES, queries=queries, features=features, dvae_kernel=1, recompute=True, iterations=2
    ).eval()
    saved.save_pretrained(tmp_path)
    slots = torch.randn(2, 5, 8)
    for loaded in (TransformerModel.from_pretrained(tmp_path), boqsa.load(tmp_path)):
        assert not loaded.training
        assert loaded.recompute
        for ours, theirs in zip(outputs(loaded), outputs(saved), strict=True):
            assert torch.equal(ours, theirs)
        for ours, theirs in zip(loaded.generate(slots), saved.generate(slots), strict=True):
            assert torch.equal(ours, theirs)


def test_the_configuration_of_a_transformer_holds_every_argument_as_json(tmp_path):
    TransformerModel(**TRANSFORMER_SIZES, keys_and_values="projected").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert set(inspect.signature(TransformerModel.__init__).parameters) - {"self"} <= set(config)
    assert config["encoder_channels"] == [8, 6]
    assert (config["keys_and_values"], config["features"], config["dropout"]) == ("projected", "image", 0.1)


def test_the_configuration_holds_every_argument_as_json(tmp_path):
    MixtureModel(**SIZES, num_slots=3).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["encoder_channels"] == [8, 6]
    assert (config["num_slots"], config["gradient"], config["drop_path"]) == (3, "bilevel", 0.2)


def test_a_model_can_be_saved_again(tmp_path):
    MixtureModel(**SIZES).save_pretrained(tmp_path / "one")
    MixtureModel.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_channels_last_weights_are_saved(tmp_path):
    saved = MixtureModel(**SIZES).eval().to(memory_format=torch.channels_last)
    saved.save_pretrained(tmp_path)
    weights = MixtureModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(weights[name], value) for name, value in saved.state_dict().items())


def test_pushing_sends_weights_configuration_and_card(tmp_path, monkeypatch):
    sent: dict[str, bytes] = {}

    class Api:
        def __init__(self, token=None):
            assert token == "secret"

        def create_repo(self, *, repo_id, private, exist_ok):
            return type("Url", (), {"repo_id": repo_id})()

        def upload_folder(self, *, repo_id, folder_path, **_):
            sent.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
            return f"https://example.org/{repo_id}"

    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    model = MixtureModel(**SIZES).eval()
    assert model.push_to_hub("someone/model", token="secret") == "https://example.org/someone/model"
    assert set(sent) == {"README.md", "config.json", "model.safetensors"}
    card = sent["README.md"].decode()
    for word in ("bo-qsa", "library_name: boqsa", "apache-2.0"):
        assert word in card
    for name, content in sent.items():
        (tmp_path / name).write_bytes(content)
    assert all(torch.equal(*pair) for pair in zip(outputs(boqsa.load(tmp_path)), outputs(model), strict=True))
