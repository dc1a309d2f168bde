"""The frozen encoder of a features model: from a folder or the hub, and attached to the model that needs it."""

from pathlib import Path

from boqsa.errors import InputError
from boqsa.inference.load import download
from boqsa.models.features import FeaturesModel
from boqsa.models.pretrained_vit import PretrainedViT


def load_encoder(path_or_hub_id: str | Path) -> PretrainedViT:
    """A pretrained vision transformer, frozen, on the CPU.

    Args:
        path_or_hub_id: A folder that `transformers` wrote (`config.json` and `model.safetensors`), or a name on the
            hub: `owner/name`, or pinned `owner/name@revision`. A folder that exists is never looked up on the hub.

    Raises:
        InputError: if there is no such folder and the hub does not have the name, or it holds something else; or if
            `transformers` is not installed.
    """
    if Path(path_or_hub_id).exists():
        return PretrainedViT.from_folder(path_or_hub_id)
    expected = "name a folder that `transformers` wrote, owner/name or owner/name@revision, with weights as safetensors"
    folder = download(str(path_or_hub_id), expected=expected)
    return PretrainedViT.from_folder(folder, name=str(path_or_hub_id))


def attach_encoder(model: FeaturesModel, path_or_hub_id: str | Path | None = None) -> None:
    """Give a features model the encoder that it was trained with.

    Args:
        model: Its `encoder_name` and `encoder_sha256` say which.
        path_or_hub_id: Where the encoder is now; None means where it was when the features were made.

    Raises:
        InputError: if it is not there, or is another one.
    """
    where = path_or_hub_id or model.encoder_name
    if where is None:
        raise InputError("the model does not know where its encoder is; name its folder with --encoder DIR.")
    if path_or_hub_id is None and Path(where).is_absolute() and not Path(where).exists():
        raise InputError(f"the encoder of this model is not at {where} any more; name its folder with --encoder DIR.")
    model.use_encoder(load_encoder(where))
