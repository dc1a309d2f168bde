"""ShapeStacks: recordings, `iseg` maps and split files."""

from pathlib import Path

import numpy as np
from PIL import Image

from boqsa.data.mimic.content import Content

_SIZE = (224, 224)


def write_shapestacks(target: Path, content: Content) -> Path:
    """A scenario with one camera for each scene: three of five train, one eval, one test."""
    scenarios: dict[str, list[str]] = {"train": [], "eval": [], "test": []}
    for index in range(max(10, content.count)):
        image, mask = content.scene(index, _SIZE)
        height = max(2, int(mask.max()))
        scenario = f"env_blocks-easy-h={height}-vcom=0-vpsf=0-v={index + 1}"
        scenarios[("train", "train", "train", "eval", "test")[index % 5]].append(scenario)
        folder = target / "recordings" / scenario
        folder.mkdir(parents=True)
        Image.fromarray(image).save(folder / "rgb-w=1-f=2-l=3-c=original-cam_4-mono-0.png")
        codes = np.full((*_SIZE, 4), 255, np.uint8)
        codes[..., :3] = 32 * mask[..., None]
        Image.fromarray(codes).save(folder / "iseg-w=0-f=0-l=0-c=original-cam_4-mono-0.map", format="PNG")
    (target / "splits" / "default").mkdir(parents=True)
    for split, names in scenarios.items():
        (target / "splits" / "default" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return target
