"""Photographs with objects in them, in the format of COCO: boxes and masks of each image in one JSON file.

A box is (left, top, right, bottom) in pixels here, where COCO writes (left, top, width, height).
"""

import json
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from lightssl.data.decode import UndecodableImage, decode
from lightssl.data.masks import Mask, checked, run_lengths
from lightssl.errors import DataError, problems_of

MAX_BAD_SHARE = 0.01  # of the boxes; more is a mistake of whoever wrote the file
_TEST_SHARE = 0.2
_SPLITS = {"train": ("train",), "test": ("test", "val", "valid")}
_FILES = ("annotations/instances_{}*.json", "annotations/{}*.json", "instances_{}*.json", "{}.json", "{}/*.coco.json")
_EDGE = 1.0  # pixels by which a box may stand out of its image for rounding
_SHOWN = 5  # of many problems

HINT = (
    "Give a COCO file, or a folder with annotations/instances_train.json and annotations/instances_val.json beside the "
    "folders train and val, or with train.json, val.json and images."
)


class _Image(BaseModel):
    id: int
    file_name: str
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]


class _Category(BaseModel):
    id: int
    name: str


class _Annotation(BaseModel):
    id: Any = None  # a number or a text, to name it by
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: Literal[0, 1] | None = 0


# Arrays take a fraction of the memory of lists, and replace them one annotation at a time.
_Polygons = Annotated[list[list[float]], AfterValidator(lambda polygons: [np.array(one) for one in polygons])]


class _Outlined(_Annotation):
    segmentation: _Polygons | dict[str, Any] | None = None


class _CocoFile(BaseModel):
    images: list[_Image]
    categories: list[_Category]
    annotations: Sequence[_Annotation]


class _OutlinedCocoFile(_CocoFile):
    annotations: Sequence[_Outlined]


class Objects(NamedTuple):
    """What is to be found in one image; crowds, which are not to be told apart, are left out."""

    boxes: np.ndarray  # float32 [N, 4], pixels
    labels: np.ndarray  # int64 [N], positions in the classes
    masks: np.ndarray | None  # uint8 [N, H, W], 1 where the object is


@dataclass(frozen=True)
class CocoImages:
    """Images, and the boxes around the objects in them. A :class:`lightssl.data.sources.Source` without labels.

    All arrays but ``sizes`` have one row a box, in the order of the images; ``starts`` says where those of an image
    begin.
    """

    name: str
    folder: Path
    files: list[str]  # of the images, below the folder
    sizes: np.ndarray  # int64 [images, 2], height and width in pixels
    class_names: list[str]
    starts: np.ndarray  # int64 [images + 1]
    boxes: np.ndarray  # float32 [boxes, 4]
    box_labels: np.ndarray  # int64 [boxes], positions in the names of the classes
    areas: np.ndarray  # float64 [boxes], square pixels: what the file says, else of the masks, if read, or boxes
    crowds: np.ndarray  # bool [boxes]
    masks: list[Mask] | None  # of each box, if they were asked for
    remarks: list[str]  # what was wrong with the file, and put up with
    labels: None = None  # of whole images, which have none
    classes: None = None

    def __len__(self) -> int:
        return len(self.files)

    def item_name(self, index: int) -> str:
        """Return an image's path below the folder."""
        return self.files[index]

    def read(self, index: int) -> np.ndarray:
        """Decode one image, uint8 [H, W, 3].

        Raises:
            UndecodableImage: It cannot be decoded, or is of another size than the boxes are made for.
            OSError: It cannot be read.
        """
        image = decode((self.folder / self.files[index]).read_bytes())
        height, width = self.sizes[index]
        if image.shape[:2] != (height, width):
            raise UndecodableImage(
                f"{image.shape[1]}x{image.shape[0]} pixels, but {self.name} has boxes for {width}x{height}"
            )
        return image

    def of_image(self, index: int) -> slice:
        """Return which rows are boxes of an image."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    def objects(self, index: int, *, masks: bool = False) -> Objects:
        """Return what is to be found in an image."""
        rows = np.arange(*self.of_image(index).indices(len(self.boxes)))
        rows = rows[~self.crowds[rows]]
        drawn = np.stack([self.mask(row, index) for row in rows]) if masks and len(rows) else None
        if masks and drawn is None:
            drawn = np.zeros((0, *self.sizes[index]), np.uint8)
        return Objects(self.boxes[rows], self.box_labels[rows], drawn)

    def mask(self, row: int, index: int) -> np.ndarray:
        """Draw the mask of a box of an image, uint8 [H, W]."""
        from pycocotools import mask as coder

        return coder.decode(self.run_lengths(row, index))

    def run_lengths(self, row: int, index: int) -> dict[str, Any]:
        """Return the mask of a box of an image as pycocotools writes it."""
        if self.masks is None:
            raise ValueError(f"{self.name} was read without its masks.")
        return run_lengths(self.masks[row], *self.sizes[index].tolist())

    def some(self, indices: Sequence[int] | np.ndarray, name: str | None = None) -> "CocoImages":
        """Return some of the images, in this order."""
        rows = [np.arange(self.starts[index], self.starts[index + 1]) for index in indices]
        counts = [len(of_one) for of_one in rows]
        chosen = np.concatenate([np.empty(0, np.int64), *rows])
        return CocoImages(
            name=name or self.name,
            folder=self.folder,
            files=[self.files[index] for index in indices],
            sizes=self.sizes[np.asarray(indices, np.int64)],
            class_names=self.class_names,
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            boxes=self.boxes[chosen],
            box_labels=self.box_labels[chosen],
            areas=self.areas[chosen],
            crowds=self.crowds[chosen],
            masks=None if self.masks is None else [self.masks[row] for row in chosen],
            remarks=self.remarks,
        )

    def with_objects(self) -> "CocoImages":
        """Return the images that something is to be found in."""
        found = [index for index in range(len(self)) if not self.crowds[self.of_image(index)].all()]
        return self.some(found)


def open_coco_splits(
    spec: str, test_spec: str | None = None, *, seed: int = 0, masks: bool = False
) -> tuple[CocoImages, CocoImages, str]:
    """Open photographs with objects to learn from, and others to test on.

    Args:
        spec: A COCO file, or a folder that holds one for each split, under one of their usual names. Images of a single
            file are split: a fifth, drawn from ``seed``, is for testing.
        test_spec: Test images from elsewhere.
        seed: Decides which images are set aside.
        masks: Read masks as well, which every object must have.

    Returns:
        Train images, test images with the same classes, and a sentence that says how the split came about.

    Raises:
        DataError: Nothing usable is there, images or masks are missing, masks are damaged, boxes lie outside of their
            images, or train and test differ in their classes or share images. Each is named.
    """
    files = _files_of(spec)
    train = read_coco(files.get("train") or files["all"], name=spec, masks=masks)
    if test_spec is not None or "test" in files:
        test_files = files if test_spec is None else _files_of(test_spec)
        test_file = test_files.get("test") or test_files.get("all") or test_files["train"]
        test = read_coco(test_file, name=test_spec or spec, masks=masks)
        how = f"{len(train):,} train images, {len(test):,} test images of {test_file.name}."
    else:
        order = np.random.default_rng(seed).permutation(len(train))
        aside = round(len(order) * _TEST_SHARE)
        if aside == 0:
            raise DataError(f"{train.name} holds too few images to set some aside for testing.", "Add more images.")
        whole = train
        train, test = whole.some(np.sort(order[aside:]), f"{spec} (4/5)"), whole.some(np.sort(order[:aside]), spec)
        how = f"{len(test):,} of {len(whole):,} images, a fifth drawn with seed {seed}, were set aside for testing."
    _check_same_classes(train, test)
    _check_apart(train, test)
    for images in (train, test):
        if not (~images.crowds).any():
            raise DataError(f"No object is marked in the images of {images.name}.", HINT)
    return train, test, how


def read_coco(file: Path, *, name: str, masks: bool = False) -> CocoImages:
    """Read a COCO file.

    Args:
        file: The JSON file. Its images lie beside it, or where COCO has them.
        name: What to call them.
        masks: Read masks as well, which every object must have.

    Raises:
        DataError: The file is damaged or of another format, images or masks are missing, a mask is damaged, or too many
            boxes are outside of their images. Every kind of problem is named with examples.
    """
    try:
        found = (_OutlinedCocoFile if masks else _CocoFile).model_validate_json(
            file.read_bytes().removeprefix(BOM_UTF8)
        )
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}", HINT) from error
    except ValidationError as error:
        raise DataError(f"{file} is not in the format of COCO:\n{_some(problems_of(error))}", HINT) from error
    if not found.images or not found.categories or not found.annotations:
        empty = next(key for key in ("images", "categories", "annotations") if not getattr(found, key))
        raise DataError(f"{file} is empty: it lists no {empty}.", HINT)
    _check_references(file, found)
    folder = _folder_of(file, [image.file_name for image in found.images])
    return _arranged(file, found, folder, name)


def _arranged(file: Path, found: _CocoFile, folder: Path, name: str) -> CocoImages:
    """Sort the boxes by image, cut them at its borders, and leave out those with nothing inside, and copies."""
    place = {image.id: index for index, image in enumerate(found.images)}
    categories = sorted(found.categories, key=lambda category: category.id)
    label = {category.id: index for index, category in enumerate(categories)}
    annotations = sorted(found.annotations, key=lambda one: place[one.image_id])
    sizes = np.array([(image.height, image.width) for image in found.images], np.int64).reshape(-1, 2)
    images = np.array([place[one.image_id] for one in annotations], np.int64)
    boxes = np.array([one.bbox for one in annotations], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    limits = sizes[images][:, [1, 0, 1, 0]].astype(np.float64)
    cut = np.clip(boxes, 0, limits)
    extent = cut[:, 2:] - cut[:, :2]
    usable = np.isfinite(boxes).all(axis=1) & (extent > 0).all(axis=1)
    names = [image.file_name for image in found.images]
    bad = [f"box {_number(annotations[row])} of {names[images[row]]}" for row in np.flatnonzero(~usable)]
    if len(bad) > MAX_BAD_SHARE * len(boxes):
        raise DataError(
            f"{len(bad):,} of {len(boxes):,} boxes of {file} are empty or outside of their images:\n{_some(bad)}",
            "COCO writes a box as left, top, width and height, in pixels.",
        )
    remarks = [f"Left out, being empty or outside of their images: {_some(bad, ', ')}"] if bad else []
    labels = np.array([label[one.category_id] for one in annotations], np.int64)
    crowds = np.array([one.iscrowd == 1 for one in annotations], bool)
    inside = np.flatnonzero(usable)
    told = np.column_stack([images, labels, crowds, boxes])[inside]
    kept = inside[np.sort(np.unique(told, axis=0, return_index=True)[1])]  # the first of several that are the same
    copies = [f"box {_number(annotations[row])} of {names[images[row]]}" for row in np.setdiff1d(inside, kept)]
    if copies:  # whoever finds such an object once would miss the others
        remarks.append(f"Left out, being marked more than once: {_some(copies, ', ')}")
    standing_out = np.flatnonzero((np.abs(cut - boxes) > _EDGE)[kept].any(axis=1))
    if len(standing_out):
        remarks.append(f"{len(standing_out):,} boxes of {file.name} stand out of their images and were cut.")
    marked = set(labels[kept].tolist())
    unused = [category.name for index, category in enumerate(categories) if index not in marked]
    if unused:
        remarks.append(f"{file.name} marks no object of {_some(unused, ', ')}.")
    masks = None
    if isinstance(found, _OutlinedCocoFile):
        outlined = [(one, images[row]) for row in kept if isinstance(one := annotations[row], _Outlined)]
        masks = _masks(file, found.images, outlined)
    areas = np.array([annotations[row].area or 0 for row in kept], np.float64)
    unmeasured = ~(np.isfinite(areas) & (areas > 0))  # pycocotools would leave such objects out
    for position in np.flatnonzero(unmeasured).tolist():
        row = kept[position]
        drawn = 0 if masks is None else _area(masks[position], *sizes[images[row]].tolist())
        areas[position] = drawn or extent[row].prod()
    return CocoImages(
        name=name,
        folder=folder,
        files=names,
        sizes=sizes,
        class_names=[category.name for category in categories],
        starts=np.searchsorted(images[kept], np.arange(len(names) + 1)),
        boxes=cut[kept].astype(np.float32),
        box_labels=labels[kept],
        areas=areas,
        crowds=crowds[kept],
        masks=masks,
        remarks=remarks,
    )


def _masks(file: Path, images: Sequence[_Image], outlined: Sequence[tuple[_Outlined, int]]) -> list[Mask]:
    """Return the mask of each object, which comes with the position of its image."""
    without = sum(not one.segmentation for one, _ in outlined)
    if without:
        raise DataError(
            f"{without:,} of {len(outlined):,} objects of {file} have boxes alone.",
            "Masks take outlines or run-length codes in 'segmentation'. To find boxes: --task detect",
        )
    masks, bad = [], []
    for one, index in outlined:
        image = images[index]
        try:
            masks.append(checked(one.segmentation or [], image.height, image.width))
        except Exception as error:  # whatever pycocotools makes of a damaged outline
            bad.append(f"box {_number(one)} of {image.file_name}: {error}")
    if bad:
        raise DataError(
            f"{len(bad):,} of {len(outlined):,} masks of {file} cannot be read:\n{_some(bad)}",
            "Mend them in the file, or take these objects out of it. To find boxes: --task detect",
        )
    return masks


def _area(mask: Mask, height: int, width: int) -> int:
    from pycocotools import mask as coder

    return int(coder.area(run_lengths(mask, height, width)))


def _files_of(spec: str) -> dict[str, Path]:
    """Find the COCO files of a folder: ``train`` and ``test``, or ``all`` where there is no such split."""
    path = Path(spec).expanduser()
    if path.is_file():
        return {"all": path}
    if not path.is_dir():
        raise DataError(f"There is no COCO file or folder {path.absolute()}.", HINT)
    found: dict[str, Path] = {}
    for split, names in _SPLITS.items():
        matches = (match for name in names for pattern in _FILES for match in sorted(path.glob(pattern.format(name))))
        if (first := next(matches, None)) is not None:
            found[split] = first
    if "train" in found:
        return found
    lone = sorted({*path.glob("*.json"), *path.glob("annotations/*.json")})
    if len(lone) == 1:
        return {"all": lone[0]}
    raise DataError(
        f"{path} holds no COCO file{' of training images' if lone else ''}.", f"{HINT} Or name one file itself."
    )


def _folder_of(file: Path, names: Sequence[str]) -> Path:
    """Find the folder that images lie in.

    Raises:
        DataError: Some are missing.
    """
    split = file.stem.removeprefix("instances_")
    above = file.parent.parent
    candidates = [file.parent, file.parent / "images", file.parent / split, file.parent / "images" / split]
    candidates += [above / split, above / "images" / split, above / "images", above]
    tried = names[:: max(1, len(names) // 50)]
    folder = max(candidates, key=lambda one: sum((one / name).is_file() for name in tried))
    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return folder
    where = f"in {folder}" if len(missing) < len(names) else f"beside it, or in {above / split}"
    raise DataError(
        f"{len(missing):,} of the {len(names):,} images that {file} lists are not {where}:\n{_some(missing)}",
        "Put them there, or take them out of the file.",
    )


def _check_references(file: Path, found: _CocoFile) -> None:
    """Raise DataError where ids or images are not unique, or ids name nothing."""
    problems = []
    kinds: dict[str, Sequence[_Image | _Category]] = {"image": found.images, "category": found.categories}
    for kind, listed in kinds.items():
        known = Counter(one.id for one in listed)
        problems += [f"{kind} {number} is listed {times} times" for number, times in known.items() if times > 1]
        unknown = Counter(number for one in found.annotations if (number := getattr(one, f"{kind}_id")) not in known)
        problems += [f"{kind} {number} is not listed, but has {times} boxes" for number, times in unknown.items()]
    repeated = Counter(category.name for category in found.categories)
    problems += [f"{times} categories are called {name!r}" for name, times in repeated.items() if times > 1]
    if problems:
        raise DataError(f"{file} contradicts itself:\n{_some(problems)}", HINT)
    paths = Counter(normpath(one.file_name) for one in found.images)
    repeated_images = [f"{path}, under {times} ids" for path, times in paths.items() if times > 1]
    if repeated_images:  # of two copies, one could be trained on and the other tested on
        raise DataError(
            f"{file} lists images more than once:\n{_some(repeated_images)}",
            "Keep one entry of each in 'images', and give its id to the objects of the others as their image_id.",
        )


def _check_apart(train: CocoImages, test: CocoImages) -> None:
    """Raise DataError where an image is to be trained on and tested on."""
    train_folder, test_folder = train.folder.resolve(), test.folder.resolve()
    to_train_on = {normpath(train_folder / name) for name in train.files}
    shared = [name for name in test.files if normpath(test_folder / name) in to_train_on]
    if shared:
        raise DataError(
            f"{len(shared):,} of the {len(test):,} test images are trained on, too:\n{_some(shared)}",
            "Take them out of one of the two files.",
        )


def _check_same_classes(train: CocoImages, test: CocoImages) -> None:
    if train.class_names == test.class_names:
        return
    train_only, test_only = (
        sorted(set(one.class_names) - set(other.class_names)) for one, other in ((train, test), (test, train))
    )
    told = [
        f"only {where}: {_some(names, ', ')}"
        for where, names in (("to train on", train_only), ("to test on", test_only))
        if names
    ]
    raise DataError(
        f"Train and test images differ in their classes: {'; '.join(told) or 'the same names in another order'}.",
        "Give both files the same categories.",
    )


def _number(annotation: _Annotation) -> str:
    return json.dumps(annotation.id) if annotation.id is not None else f"{list(annotation.bbox)}"


def _some(lines: Sequence[str], separator: str = "\n") -> str:
    indent = "  " if separator == "\n" else ""
    shown = [f"{indent}{line}" for line in lines[:_SHOWN]]
    return separator.join(shown + ([f"{indent}and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else []))
