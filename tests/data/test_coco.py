"""What is read of COCO files, and what is wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import move
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightssl.data.coco import open_coco_splits, read_coco
from lightssl.data.decode import UndecodableImage
from lightssl.errors import DataError

Change = Callable[[dict[str, Any]], object]


def change(coco: Path, what: Change, split: str = "train") -> Path:
    """Rewrite the COCO file of a split."""
    file = coco / "annotations" / f"instances_{split}.json"
    content = json.loads(file.read_text())
    what(content)
    file.write_text(json.dumps(content))
    return file


def test_boxes_and_names_are_read_as_written(coco: Path) -> None:
    train, test, how = open_coco_splits(str(coco), masks=True)
    assert (len(train), len(test)) == (20, 6)
    assert train.class_names == ["red", "blue"]
    assert how == "20 train images, 6 test images of instances_val.json."
    content = json.loads((coco / "annotations" / "instances_train.json").read_text())
    for index, image in enumerate(content["images"]):
        own = [one for one in content["annotations"] if one["image_id"] == image["id"]]
        found = train.objects(index, masks=True)
        assert found.labels.tolist() == [one["category_id"] // 3 - 1 for one in own]
        for box, mask, one in zip(found.boxes.astype(int), found.masks, own, strict=True):
            left, top, width, height = one["bbox"]
            assert box.tolist() == [left, top, left + width, top + height]
            assert mask[top : top + height, left : left + width].all()
            assert mask.sum() == width * height
        assert train.read(index).shape == (48, 64, 3)


def test_a_run_length_code_draws_the_mask_that_polygons_draw(coco: Path) -> None:
    from pycocotools import mask as coder

    polygons = read_coco(coco / "annotations" / "instances_train.json", name="coco", masks=True)
    expected = polygons.mask(0, 0)
    code = coder.encode(np.asfortranarray(expected))
    runs = np.flatnonzero(np.diff(np.concatenate([[0], expected.flatten("F"), [0]])))
    lengths = np.diff(np.concatenate([[0], runs, [expected.size]])).tolist()

    def as_codes(content: dict[str, Any]) -> None:
        content["annotations"][0]["segmentation"] = {"size": [48, 64], "counts": lengths}
        content["annotations"][1]["segmentation"] = {"size": [48, 64], "counts": code["counts"].decode()}
        content["annotations"][1]["image_id"] = content["annotations"][0]["image_id"]

    codes = read_coco(change(coco, as_codes), name="coco", masks=True)
    for row in (0, 1):
        np.testing.assert_array_equal(codes.mask(row, 0), expected)


def in_one_folder(coco: Path) -> Path:
    for split in ("train", "val"):
        move(coco / "annotations" / f"instances_{split}.json", coco / f"{split}.json")
    return coco


def beside_their_images(coco: Path) -> Path:
    for split, name in (("train", "train"), ("val", "valid")):
        move(coco / split, coco / name) if split != name else None
        move(coco / "annotations" / f"instances_{split}.json", coco / name / "_annotations.coco.json")
    return coco


def of_a_year(coco: Path) -> Path:
    for split in ("train", "val"):
        move(coco / split, coco / f"{split}2017")
        move(coco / "annotations" / f"instances_{split}.json", coco / "annotations" / f"instances_{split}2017.json")
    return coco


@pytest.mark.parametrize("arrange", [in_one_folder, beside_their_images, of_a_year])
def test_usual_places_are_known(coco: Path, arrange: Callable[[Path], Path]) -> None:
    train, test, _ = open_coco_splits(str(arrange(coco)))
    assert (len(train), len(test)) == (20, 6)
    assert train.read(19).shape == test.read(5).shape == (48, 64, 3)


def test_a_fifth_of_a_lone_file_is_set_aside(coco: Path) -> None:
    file = str(coco / "annotations" / "instances_train.json")
    train, test, how = open_coco_splits(file, seed=1)
    assert (len(train), len(test)) == (16, 4)
    assert not set(train.files) & set(test.files)
    assert "a fifth drawn with seed 1" in how
    assert open_coco_splits(file, seed=1)[1].files == test.files
    whole = read_coco(Path(file), name="coco")
    for index, name in enumerate(test.files):  # boxes went with their images
        np.testing.assert_array_equal(test.objects(index).boxes, whole.objects(whole.files.index(name)).boxes)
    elsewhere = open_coco_splits(file, str(coco / "annotations" / "instances_val.json"))
    assert [len(part) for part in elsewhere[:2]] == [20, 6]


def test_images_to_test_on_are_not_trained_on(coco: Path) -> None:
    file = coco / "annotations" / "instances_train.json"
    with pytest.raises(DataError, match=r"20 of the 20 test images are trained on, too:\n  0\.png"):
        open_coco_splits(str(coco), str(file))


def test_images_without_objects_are_for_testing_alone(coco: Path) -> None:
    def clear(content: dict[str, Any]) -> None:
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] > 12]
        content["annotations"][0]["iscrowd"] = 1

    images = read_coco(change(coco, clear), name="coco", masks=True)
    assert len(images) == 20
    assert len(images.objects(0).boxes) == 0
    assert images.objects(0, masks=True).masks.shape == (0, 48, 64)
    assert images.with_objects().files == images.files[3:]


def test_boxes_that_stand_out_are_cut_and_said(coco: Path) -> None:
    def widen(content: dict[str, Any]) -> None:
        content["annotations"][0]["bbox"] = [40, 30, 100, 100]

    images = read_coco(change(coco, widen), name="coco")
    assert images.objects(0).boxes.tolist() == [[40, 30, 64, 48]]
    assert images.remarks == ["1 boxes of instances_train.json stand out of their images and were cut."]


def test_a_few_unusable_boxes_are_left_out_and_named(coco: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        first = content["annotations"][0]
        content["annotations"] += [
            {**first, "id": 100 + number, "bbox": [0, 0, 9, 9 + number / 30]} for number in range(300)
        ]
        content["annotations"][1]["bbox"] = [70, 0, 10, 10]
        content["annotations"][2]["bbox"] = [10, 10, 0, 5]

    images = read_coco(change(coco, spoil), name="coco")
    assert len(images.boxes) == 328
    assert images.remarks == [
        "Left out, being empty or outside of their images: box 2 of 1.png, box 3 of 1.png",
    ]


def test_objects_that_are_marked_twice_are_left_out_and_named(coco: Path) -> None:
    whole = read_coco(coco / "annotations" / "instances_train.json", name="coco", masks=True)

    def repeat(content: dict[str, Any]) -> None:
        first, second = content["annotations"][:2]
        content["annotations"] += [{**one, "id": 100 + number} for number, one in enumerate((first, second, first))]
        content["annotations"] += [{**first, "category_id": 6}, {**first, "iscrowd": 1}]  # something else

    images = read_coco(change(coco, repeat), name="coco", masks=True)
    assert images.remarks == [
        "Left out, being marked more than once: box 100 of 0.png, box 102 of 0.png, box 101 of 1.png"
    ]
    assert images.box_labels[images.of_image(0)].tolist() == [0, 1, 0]
    assert images.crowds[images.of_image(0)].tolist() == [False, False, True]
    np.testing.assert_array_equal(images.boxes[3:], whole.boxes[1:])
    assert len(images.masks or []) == len(images.areas) == 32


@pytest.mark.parametrize("area", [None, 0, -1, float("nan"), float("inf")])
def test_an_area_that_is_none_is_measured(coco: Path, area: float | None) -> None:
    def spoil(content: dict[str, Any]) -> None:
        triangle = [0, 0, 20, 0, 0, 20]
        content["annotations"][0].update(bbox=[0, 0, 20, 20], segmentation=[triangle], area=area)
        content["annotations"][1].update(bbox=[60, 0, 20, 20], area=area)
        content["annotations"][2].update(area=7.5)

    file = change(coco, spoil)
    boxes, drawn = (read_coco(file, name="coco", masks=masks) for masks in (False, True))
    assert boxes.areas[:3].tolist() == [400, 80, 7.5]  # of what is inside of the image
    assert drawn.areas[0] == drawn.mask(0, 0).sum() == pytest.approx(200, abs=20)
    assert drawn.areas[1] == drawn.mask(1, 1).sum()
    assert drawn.areas[2] == 7.5


def test_what_other_programs_write_is_read(coco: Path) -> None:
    def write(content: dict[str, Any]) -> None:
        for one in content["annotations"]:
            one.update(id=f"a{one['id']}", iscrowd=None)
        content["annotations"].append(dict(content["annotations"][0]))

    file = change(coco, write)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # as Windows begins a text
    images = read_coco(file, name="coco")
    assert len(images.boxes) == 30
    assert not images.crowds.any()
    assert images.remarks == ['Left out, being marked more than once: box "a1" of 0.png']


def set_first(key: str, value: Any) -> Change:
    return lambda content: content["annotations"][0].update({key: value})


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            set_first("bbox", [70, 0, 10, 10]),
            "1 of 30 boxes of .* are empty or outside of their images:\n  box 1 of 0.png",
        ),
        (set_first("bbox", [0, 0, 10]), "annotations.0.bbox.*"),
        (set_first("image_id", 7), "image 7 is not listed, but has 1 boxes"),
        (set_first("category_id", 7), "category 7 is not listed, but has 1 boxes"),
        (lambda content: content.update(annotations=[]), "it lists no annotations"),
        (lambda content: content.update(images=[]), "it lists no images"),
        (lambda content: content.pop("categories"), "categories: Field required"),
        (lambda content: content["images"].append(content["images"][0]), "image 10 is listed 2 times"),
        (
            lambda content: content["images"].append({**content["images"][0], "id": 7, "file_name": "./0.png"}),
            r"instances_train\.json lists images more than once:\n  0\.png, under 2 ids\nKeep one entry of each",
        ),
        (lambda content: content["categories"][1].update(name="red"), "2 categories are called 'red'"),
        (lambda content: content["images"][3].update(file_name="gone.png"), "1 of the 20 images .*:\n  gone.png"),
        (lambda content: content["categories"][1].update(name="sky"), "only to train on: sky; only to test on: blue"),
        (lambda content: content["categories"].reverse() or content["categories"][0].update(id=1), "category 6"),
        (
            lambda content: [one.update(iscrowd=1) for one in content["annotations"]],
            "No object is marked in the images",
        ),
    ],
)
def test_what_is_wrong_is_named(coco: Path, what: Change, message: str) -> None:
    change(coco, what)
    with pytest.raises(DataError, match=message):
        open_coco_splits(str(coco))


def test_masks_are_asked_for(coco: Path) -> None:
    change(coco, set_first("segmentation", []))
    open_coco_splits(str(coco))
    with pytest.raises(DataError, match=r"1 of 30 objects of .* have boxes alone"):
        open_coco_splits(str(coco), masks=True)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [48, 64]}, "its run-length code has no 'counts'"),
        ({"counts": [3072]}, "its run-length code has no 'size'"),
        ({"size": [64, 48], "counts": [3072]}, r"its size, .*, is \[64, 48\], that of the image \[48, 64\]"),
        ({"size": [48, 64], "counts": [10, 20, 30]}, "its runs are not those of 3,072 pixels"),
        ({"size": [48, 64], "counts": [3082, -10]}, "its runs are not those of 3,072 pixels"),
        ({"size": [48, 64], "counts": ["many"]}, "invalid literal"),
        ({"size": [48, 64], "counts": 3072}, "Buffer has wrong number of dimensions"),
        ({"size": [48, 64], "counts": "abc"}, "its run-length code is damaged"),  # ends within a number
        ({"size": [48, 64], "counts": "PP3ä"}, "its run-length code is damaged"),
        ({"size": [48, 64], "counts": ""}, "its run-length code is damaged"),
        ({"size": [48, 64], "counts": "oooooooooooooo0"}, "its run-length code is damaged"),
        ({"size": [48, 64], "counts": "123"}, "its runs are not those of 3,072 pixels"),
        ([[1, 2, 3]], "a polygon takes x and y of three corners"),
        ([[1, 2, 30, 40]], "a polygon takes x and y of three corners"),
        ([[1, 2, 30, 2, 30, 40], [1, 2, 30, 2, 30, 40, 1]], "a polygon takes x and y of three corners"),
        ([[1, 2, 1e9, 2, 30, 40]], "a corner of its polygons is far outside of the image"),
        ([[1, 2, float("nan"), 2, 30, 40]], "a corner of its polygons is far outside of the image"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_damaged_masks_are_named_before_anything_is_trained(
    coco: Path, split: str, segmentation: Any, message: str
) -> None:
    file = change(coco, set_first("segmentation", segmentation), split)
    open_coco_splits(str(coco))  # to find boxes takes none
    with pytest.raises(DataError, match=rf"1 of \d+ masks of {file} cannot be read:\n  box 1 of 0\.png: {message}"):
        open_coco_splits(str(coco), masks=True)


def test_masks_that_are_all_of_another_size_are_named(coco: Path) -> None:
    def turn(content: dict[str, Any]) -> None:
        for one in content["annotations"]:
            one["segmentation"] = {"size": [64, 48], "counts": [0, 100, 2972]}

    change(coco, turn)
    with pytest.raises(DataError, match=r"(?s)30 of 30 masks .* box 1 of 0\.png: .* and 25 more"):
        open_coco_splits(str(coco), masks=True)


def test_a_polygon_of_two_corners_draws_nothing(coco: Path) -> None:
    square = [2, 2, 12, 2, 12, 12, 2, 12]
    file = change(coco, set_first("segmentation", [[30, 30, 5, 5], square]))
    assert read_coco(file, name="coco", masks=True).mask(0, 0).sum() == 100


def test_masks_are_kept_small_and_only_where_they_are_asked_for(coco: Path) -> None:
    def as_code(content: dict[str, Any]) -> None:
        content["annotations"][1]["segmentation"] = {"size": [48, 64], "counts": [0, 100, 2972]}

    file = change(coco, as_code)
    boxes, drawn = (read_coco(file, name="coco", masks=masks) for masks in (False, True))
    assert boxes.masks is None
    assert boxes.some([0]).masks is None
    with pytest.raises(ValueError, match="coco was read without its masks"):
        boxes.objects(0, masks=True)
    assert drawn.masks is not None
    (polygon,), code = drawn.masks[:2]
    assert polygon.dtype == np.float64  # type: ignore[union-attr]
    assert isinstance(code, bytes)
    assert drawn.some([1]).masks == drawn.masks[1:3]


def test_an_image_of_another_size_cannot_be_used(coco: Path) -> None:
    Image.new("RGB", (48, 64)).save(coco / "train" / "0.png")
    train, _, _ = open_coco_splits(str(coco))
    with pytest.raises(UndecodableImage, match=r"48x64 pixels, but .* has boxes for 64x48"):
        train.read(0)


def test_what_is_no_coco_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no COCO file or folder"):
        open_coco_splits("sample")
    with pytest.raises(DataError, match="holds no COCO file"):
        open_coco_splits(str(tmp_path))
    (tmp_path / "one.json").write_text("[1, 2")
    with pytest.raises(DataError, match="not in the format of COCO"):
        open_coco_splits(str(tmp_path))
    (tmp_path / "two.json").write_text("{}")
    with pytest.raises(DataError, match="no COCO file of training images"):
        open_coco_splits(str(tmp_path))
