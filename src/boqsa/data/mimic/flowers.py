"""Oxford Flowers 102: photographs, the same with a blue background, and `setid.mat`."""

from pathlib import Path

import numpy as np
from PIL import Image

from boqsa.data.mimic.content import Content

_SIZES = ((120, 144), (144, 120))
_BLUE = (0, 0, 254)


def write_flowers(target: Path, content: Content) -> Path:
    """Write photographs of all objects of a scene as if they were one flower; every sixth is val, every sixth test."""
    from scipy.io import savemat

    numbers: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    for index in range(content.count):
        image, mask = content.scene(index, _SIZES[index % 2])
        painted = np.where((mask > 0)[..., None], image, np.array(_BLUE, np.uint8))
        for folder, name, pixels in (("jpg", "image", image), ("segmim", "segmim", painted)):
            (target / folder).mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(pixels)
            picture.save(target / folder / f"{name}_{index + 1:05d}.jpg", quality=95, subsampling=0)
        numbers[{4: "valid", 5: "tstid"}.get(index % 6, "trnid")].append(index + 1)
    savemat(target / "setid.mat", {name: np.array([values], np.uint16) for name, values in numbers.items()})
    return target
