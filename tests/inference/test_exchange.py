"""What other tools make of a segmentation: supervision, pycocotools, and whoever reads indexed PNGs."""

import pickle
import sys

import numpy as np
import pytest
import supervision
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import boqsa
from boqsa.errors import InputError
from boqsa.inference import Segmentation
from boqsa.inference.exchange import coco_categories, label_map_text
from boqsa.inference.picture import to_picture
from boqsa.reports import save_label_png

LABELS = np.array([[0, 0, 3, 3, 255], [0, 1, 1, 3, 255], [0, 1, 1, 3, 255]], np.uint8)
"""Slot 2 owns nothing; the last column lies outside the crop."""


@pytest.fixture
def found() -> Segmentation:
    masks = np.zeros((4, 2, 2), np.float32)
    masks[0] = [[0.75, 0.25], [0.5, 0.25]]
    masks[1] = [[0.25, 0.25], [0.25, 0.5]]
    masks[3] = [[0, 0.5], [0.25, 0.25]]
    picture = np.arange(45, dtype=np.uint8).reshape(3, 5, 3)
    window = (slice(0, 3), slice(0, 4))
    return Segmentation(picture, LABELS, masks, np.zeros((4, 8), np.float32), np.zeros((3, 2, 2), np.float32), window)


def test_area_share_box_and_confidence_by_hand(found: Segmentation) -> None:
    assert found.area.tolist() == [4, 4, 0, 4]
    assert found.share.tolist() == [1 / 3, 1 / 3, 0, 1 / 3]
    assert found.xyxy.tolist() == [[0, 0, 2, 3], [1, 1, 3, 3], [0, 0, 0, 0], [2, 0, 4, 3]]
    assert found.confidence.tolist() == [0.625, 0.5, 0, 0.5]


def test_soft_masks_have_the_picture_s_size_and_lie_in_the_crop(found: Segmentation) -> None:
    soft = found.soft_masks()
    assert soft.shape == (4, 3, 5)
    np.testing.assert_allclose(soft[:, :, :4].sum(axis=0), 1, atol=1e-6)
    assert (soft[:, :, 4] == 0).all()
    assert soft[0, 0, 0] == 0.75


def test_the_largest_soft_mask_owns_the_pixel(model) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    seen = boqsa.Segmenter(model).predict(picture)
    assert (seen.soft_masks().argmax(axis=0) == seen.labels).mean() > 0.999  # ties may round otherwise


def test_a_slot_is_cut_out(found: Segmentation) -> None:
    cut = found.slot_picture(1)
    assert cut.shape == (3, 5, 4)
    np.testing.assert_array_equal(cut[..., :3], found.picture)
    np.testing.assert_array_equal(cut[..., 3] == 255, LABELS == 1)
    with pytest.raises(InputError, match="slot 4 does not exist; slots are 0 to 3"):
        found.slot_picture(4)


def test_supervision_has_the_slots_that_own_pixels(found: Segmentation) -> None:
    detections = found.to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert detections.class_id.tolist() == [0, 1, 3]
    assert detections.confidence.tolist() == [0.625, 0.5, 0.5]
    assert detections["class_name"].tolist() == ["slot 0", "slot 1", "slot 3"]
    np.testing.assert_array_equal(detections.mask, [slot == LABELS for slot in (0, 1, 3)])
    assert detections.area.tolist() == [4, 4, 4]
    assert detections.xyxy[1].tolist() == [1, 1, 3, 3]


def test_without_supervision_it_is_said_what_to_type(found: Segmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match="pip install supervision"):
        found.to_supervision()


def test_pycocotools_reads_the_annotations(found: Segmentation) -> None:
    annotations = found.to_coco(image_id=7, first_id=20)
    assert [(one["id"], one["image_id"], one["category_id"]) for one in annotations] == [
        (20, 7, 1),
        (21, 7, 2),
        (22, 7, 4),
    ]
    for one, slot in zip(annotations, (0, 1, 3), strict=True):
        np.testing.assert_array_equal(coco_mask.decode(one["segmentation"]), slot == LABELS)
        assert coco_mask.area(one["segmentation"]) == one["area"] == 4
        assert coco_mask.toBbox(one["segmentation"]).tolist() == one["bbox"]
    whole = COCO()
    images = [{"id": 7, "file_name": "a.png", "height": 3, "width": 5}]
    whole.dataset = {"images": images, "annotations": annotations, "categories": coco_categories(4)}
    whole.createIndex()
    assert [category["name"] for category in whole.loadCats(whole.getCatIds())] == [f"slot {slot}" for slot in range(4)]
    np.testing.assert_array_equal(whole.annToMask(whole.loadAnns(21)[0]), LABELS == 1)


def test_a_label_map_has_the_colours_of_its_list(found: Segmentation, tmp_path) -> None:
    """CVAT reads an indexed PNG by its colours."""
    save_label_png(tmp_path / "a.png", found.labels)
    colours = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    lines = label_map_text(4, names={0: "floor"}).splitlines()
    assert lines[0].startswith("#")
    named = {line.split(":")[0]: [int(part) for part in line.split(":")[1].split(",")] for line in lines[1:]}
    assert list(named) == ["floor", "slot 1", "slot 2", "slot 3"]
    assert len({tuple(colour) for colour in named.values()}) == 4
    for slot, colour in enumerate(named.values()):
        assert (colours[slot == LABELS] == colour).all()


def test_pictures_come_in_many_shapes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for same in (pixels, Image.fromarray(pixels), pixels / 255, tensor, tensor.float() / 255, tensor.double() / 255):
        np.testing.assert_array_equal(to_picture(same), pixels)
    grey = to_picture(pixels[..., 0])
    assert grey.shape == (5, 7, 3)
    np.testing.assert_array_equal(grey[..., 2], pixels[..., 0])


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (7, "int found"),
        (np.zeros((5, 7, 4), np.uint8), r"\(5, 7, 4\) found"),
        (np.zeros((0, 7, 3), np.uint8), r"\(0, 7, 3\) found"),
        (np.zeros((5, 7, 3), np.int64), "pixels are int64"),
        (np.full((5, 7, 3), 200.0), "divide by 255"),
        (np.full((5, 7, 3), np.nan), "divide by 255"),
        (torch.zeros(5, 7, 3), r"\(5, 7, 3\) found"),
        (torch.zeros(1, 3, 5, 7), "a tensor"),
        (np.broadcast_to(np.uint8(0), (10_000, 10_000, 3)), "make it smaller"),
    ],
)
def test_what_is_no_picture_is_refused(picture: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        to_picture(picture)


def test_from_pretrained_takes_a_saved_model(model, tmp_path) -> None:
    model.save_pretrained(tmp_path / "saved")
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    found = boqsa.Segmenter.from_pretrained(tmp_path / "saved").predict(picture)
    np.testing.assert_array_equal(found.slots, boqsa.Segmenter(model).predict(picture).slots)


def test_a_segmentation_travels_between_processes(found: Segmentation) -> None:
    again = pickle.loads(pickle.dumps(found))
    assert again.names == {}
    np.testing.assert_array_equal(again.labels, LABELS)
