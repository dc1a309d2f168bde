"""The table under every segmentation metric: how many pixels each pair (predicted, true label) shares.

One `bincount` counts the whole batch on the device of the label maps, in exact integers. Pixels to ignore get
a column of their own, which is dropped after counting, so no pixel has to be picked out of the maps first.

Shapes: B images, H W pixels, P predicted labels and T true labels of the batch.
"""

import torch
from jaxtyping import Float64, Int64, Integer
from torch import Tensor

# Labels up to here index the table as they are; larger ones are renumbered first, which costs a sort.
# 255 covers slots and 8-bit masks.
_LARGEST_DIRECT_LABEL = 255

# 2 GiB of counts. Below it every cell number fits 32-bit integers, which count faster than 64-bit ones.
_MOST_CELLS = 2**28


def contingency_table(pred: Integer[Tensor, "B H W"], true: Integer[Tensor, "B H W"]) -> Int64[Tensor, "B P T"]:
    """Count the pixels that each predicted label shares with each true label, an image at a time.

    Args:
        pred: Predicted labels, any integers from 0 up.
        true: True labels, any integers; 0 is the background, pixels below 0 are left out.

    Returns:
        Pixel counts. Rows are predicted labels in ascending order. Column 0 is always the background, the
        other columns are true labels in ascending order. Rows and columns may be empty: all images of the
        batch share them, and small labels keep their own number.

    Raises:
        TypeError: if a map is not a tensor of integers.
        ValueError: if shapes or devices differ, a map is not (batch, height, width), `pred` has a negative
            label, or the batch has so many labels that the table would not fit memory.
    """
    pred = _checked_labels(pred, "pred")
    true = _checked_labels(true, "true")
    if pred.shape != true.shape:
        raise ValueError(
            f"pred has shape {tuple(pred.shape)} and true has shape {tuple(true.shape)}; expected equal "
            "shapes: resize the predicted masks to the size of the true labels."
        )
    if pred.device != true.device:
        raise ValueError(f"pred is on {pred.device} and true is on {true.device}; move both to one device.")
    batch = pred.shape[0]
    if pred.numel() == 0:
        return torch.zeros((batch, 1, 1), dtype=torch.int64, device=pred.device)

    pred_range, true_range = pred.aminmax(), true.aminmax()
    # One transfer for all four: on an accelerator each transfer waits for the device.
    extremes = torch.stack([bound.long() for bound in (*pred_range, *true_range)])
    pred_low, pred_high, true_low, true_high = extremes.tolist()
    if pred_low < 0:
        raise ValueError(
            f"pred has the label {pred_low}; expected labels from 0 up. Mark pixels to ignore in true, with -1."
        )
    if pred_high > _LARGEST_DIRECT_LABEL:
        pred = torch.unique(pred, return_inverse=True)[1]
        pred_high = int(pred.max())
    if true_high > _LARGEST_DIRECT_LABEL:
        true = _renumbered(true)
        true_high = int(true.max())
    elif true_low < -1:
        true = true.clamp(min=-1)

    rows, columns = pred_high + 1, max(true_high, 0) + 2  # one column more, for ignored pixels
    cells = batch * rows * columns
    if cells > _MOST_CELLS:
        raise ValueError(
            f"{batch} images with {rows} predicted and {columns - 1} true labels need a table of {cells} "
            f"cells, more than {_MOST_CELLS}; pass fewer images at a time, or check that both hold labels."
        )
    first_cell = torch.arange(batch, dtype=torch.int32, device=pred.device) * (rows * columns) + 1
    # Adding the 64-bit map itself would be correct and ten times as slow.
    cell = pred.to(torch.int32).mul(columns).add_(true.to(torch.int32)).add_(first_cell[:, None, None])
    counts = cell.flatten().bincount(minlength=cells)
    return counts.view(batch, rows, columns)[:, :, 1:]


def pairwise_iou(counts: Int64[Tensor, "B P T"]) -> Float64[Tensor, "B P T"]:
    """Intersection over union of each pair of segments of a contingency table, 0 to 1; 0 where a label is absent."""
    union = counts.sum(dim=2, keepdim=True) + counts.sum(dim=1, keepdim=True) - counts
    # A union of 0 belongs to labels that other images of the batch use.
    return counts.double() / union.clamp(min=1)


def _renumbered(true: Integer[Tensor, "B H W"]) -> Int64[Tensor, "B H W"]:
    """Number the labels of the batch without gaps; ignored pixels become -1 and the background stays 0."""
    reserved = torch.tensor([-1, 0], device=true.device)
    labels = torch.cat([reserved, true.flatten().long().clamp(min=-1)])
    numbers: Tensor = torch.unique(labels, return_inverse=True)[1]
    return numbers[2:].view(true.shape) - 1


def _checked_labels(labels: Tensor, name: str) -> Tensor:
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name} is a {type(labels).__name__}; expected a torch tensor of integer labels.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(
            f"{name} has dtype {labels.dtype}; expected integer labels. Turn masks into labels with label_map."
        )
    if labels.ndim != 3:
        raise ValueError(f"{name} has shape {tuple(labels.shape)}; expected (batch, height, width).")
    # torch implements few operations on the wide unsigned types.
    return labels.long() if labels.dtype in (torch.uint16, torch.uint32, torch.uint64) else labels
