import io
import os
import runpy
import tarfile
from collections.abc import Iterable
from gzip import compress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightssl.data import embedded
from lightssl.data.decode import decode
from lightssl.data.paths import Paths
from lightssl.data.sources import Source, Subset, open_source, open_splits, some_of_each_class
from lightssl.errors import DataError


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(root: Path, names: Iterable[str]) -> Path:
    for value, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(value % 256))
    return root


def write_tar(path: Path, names: Iterable[str], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for value, name in enumerate(names):
            data = png(value % 256)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def names_of(source: Source) -> list[str]:
    return [source.item_name(index) for index in range(len(source))]


def label_names(source: Source) -> list[str]:
    assert source.labels is not None
    assert source.classes is not None
    assert source.labels.dtype == np.int64
    return [source.classes[label] for label in source.labels]


def values(source: Source) -> list[int]:
    return [int(decode(source.read(index))[0, 0, 0]) for index in range(len(source))]


# The embedded sample


def test_the_sample_is_balanced_and_ready_to_decode() -> None:
    train, test, how = open_splits("sample")
    assert (len(train), len(test)) == (8000, 2000)
    assert "8,000" in how
    assert "2,000" in how
    for source in (train, test):
        assert np.bincount(source.labels).tolist() == [len(source) // 10] * 10
        image = decode(source.read(5))
        assert image.shape == (28, 28, 3)
        assert image.dtype == np.uint8
        assert image.max() > 100
    assert train.classes is not None
    assert train.classes[:2] == ["T-shirt/top", "Trouser"]
    assert not np.array_equal(train.read(0), test.read(0))
    assert len(open_source("sample")) == 8000


def test_the_sample_is_small_and_has_its_licence_beside_it() -> None:
    folder = Path(embedded.__file__).with_name("sample")
    assert sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) < 6_000_000
    assert "Zalando" in (folder / "LICENSE").read_text()


def test_the_script_that_made_the_sample_gives_the_same_bytes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for prefix, each in (("train", 801), ("t10k", 201)):
        labels = rng.permutation(np.repeat(np.arange(2, dtype=np.uint8), each))
        images = rng.integers(0, 256, (len(labels), 2, 2), dtype=np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (tmp_path / f"{prefix}-{kind}-ubyte.gz").write_bytes(compress(header + array.tobytes()))
    script = Path(embedded.__file__).parent / "sample" / "make_sample.py"
    made = []
    for name in ("a.npz", "b.npz"):
        monkeypatch.setattr("sys.argv", [str(script), str(tmp_path), "--out", str(tmp_path / name)])
        runpy.run_path(str(script), run_name="__main__")
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert np.bincount(arrays["train_labels"]).tolist() == [800, 800]
        assert arrays["test_images"].shape == (400, 2, 2)


# Folders


def test_a_folder_is_read_at_any_depth_in_sorted_order_without_hidden_files(tmp_path: Path) -> None:
    wanted = ["a/x/1.PNG", "a/x/2.jpeg", "a/0.webp", "b/deep/er/3.TIF", "b/4.bmp", "b/5.tiff", "b/6.jpg"]
    write_folder(tmp_path, [*wanted, "a/.hidden.png", ".cache/9.png", "a/notes.txt", "a/._1.png"])
    source = open_source(str(tmp_path))
    assert names_of(source) == sorted(wanted)
    assert source.classes == ["a", "b"]
    assert label_names(source) == [name[0] for name in sorted(wanted)]
    assert values(source) == [wanted.index(name) for name in sorted(wanted)]


def test_a_folder_with_images_outside_of_class_folders_has_no_labels(tmp_path: Path) -> None:
    source = open_source(str(write_folder(tmp_path, ["a/1.png", "b/2.png", "3.png"])))
    assert len(source) == 3
    assert source.labels is None
    assert source.classes is None
    with pytest.raises(DataError, match=r"no labels.* 3\.png lies in no folder\.\n.*DIR/cat/1\.jpg"):
        open_splits(str(tmp_path))


def test_names_need_not_be_valid_text(tmp_path: Path) -> None:
    folder = os.fsencode(write_folder(tmp_path, ["ä/ü.png"]))
    try:
        with open(folder + b"/\xff.png", "wb") as file:  # noqa: PTH123 (a name in bytes)
            file.write(png(7))
    except OSError:
        pytest.skip("this file system takes only valid text")
    source = open_source(str(tmp_path))
    assert names_of(source) == ["ä/ü.png", "\\xff.png"]
    "".join(names_of(source)).encode("utf-8")
    assert values(source) == [0, 7]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", ["1.png"])
    data = write_folder(tmp_path / "data", ["a/1.png"])
    (data / "b").symlink_to(tmp_path / "elsewhere")
    (data / "a" / "up").symlink_to(data)
    (data / "a" / "gone.png").symlink_to(data / "missing.png")
    assert names_of(open_source(str(data))) == ["a/1.png", "b/1.png"]


def test_train_and_test_folders_are_a_split(tmp_path: Path) -> None:
    write_folder(tmp_path, ["train/a/1.png", "train/b/2.png", "train/b/3.png", "val/a/4.png", "val/b/5.png"])
    assert names_of(open_source(str(tmp_path))) == ["a/1.png", "b/2.png", "b/3.png"]
    train, test, how = open_splits(str(tmp_path))
    assert label_names(train) == ["a", "b", "b"]
    assert names_of(test) == ["a/4.png", "b/5.png"]
    assert "3 train and 2 test" in how
    write_folder(tmp_path, ["test/a/6.png"])
    assert names_of(open_source(str(tmp_path), split="test")) == ["a/6.png"]


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_the_folder_of_test_images_has_one_of_several_names(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path, ["train/a/1.png", "train/b/2.png", f"{name}/a/3.png", f"{name}/b/4.png"])
    train, test, _ = open_splits(str(tmp_path))
    assert (names_of(train), names_of(test)) == (["a/1.png", "b/2.png"], ["a/3.png", "b/4.png"])


def test_a_class_called_train_is_no_split(tmp_path: Path) -> None:
    source = open_source(str(write_folder(tmp_path, ["train/1.png", "bus/2.png"])))
    assert source.classes == ["bus", "train"]
    with pytest.raises(DataError, match="test or val"):
        open_source(str(tmp_path), split="test")


def test_paths_are_given_back_as_they_came() -> None:
    paths = ["a/1.png", "", "ä/\udcff.png"]
    kept = Paths.of(paths)
    assert [kept[index] for index in range(len(kept))] == list(kept) == paths


# Tar files


def test_tar_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "b.tar", ["set/train/cat/1.png", "set/train/dog/1.png"])
    write_tar(tmp_path / "a.tar", ["set/train/cat/1.png", "set/train/cat/deep/2.JPG", "set/readme.txt", "set/._x.png"])
    source = open_source(f"{tmp_path}/*.tar")
    assert names_of(source) == [
        "a.tar/set/train/cat/1.png",
        "a.tar/set/train/cat/deep/2.JPG",
        "b.tar/set/train/cat/1.png",
        "b.tar/set/train/dog/1.png",
    ]
    assert label_names(source) == ["cat", "cat", "cat", "dog"]
    assert values(source) == [0, 1, 0, 1]
    assert label_names(open_source(str(tmp_path / "b.tar"))) == ["cat", "dog"]


def test_labels_of_a_tar_made_of_the_current_folder(tmp_path: Path) -> None:
    source = open_source(str(write_tar(tmp_path / "x.tar", ["./cat/1.png", "./dog/2.png"])))
    assert label_names(source) == ["cat", "dog"]


def test_a_tar_may_hold_train_and_test(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", ["cifar/train/cat/1.png", "cifar/test/cat/2.png", "cifar/train/dog/3.png"])
    write_tar(tmp_path / "y.tar", ["cifar/test/dog/4.png"])
    train, test, _ = open_splits(f"{tmp_path}/?.tar")
    assert values(train) == [0, 2]
    assert values(test) == [1, 0]
    assert label_names(train) == label_names(test) == ["cat", "dog"]
    assert len(open_source(f"{tmp_path}/?.tar")) == 2


def test_only_regular_members_count(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", ["a/1.png"])
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"a/{kind.decode()}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert names_of(open_source(str(path))) == ["x.tar/a/1.png"]


def test_a_long_member_name_is_kept(tmp_path: Path) -> None:
    name = f"a/{'x' * 300}.png"
    assert names_of(open_source(str(write_tar(tmp_path / "x.tar", [name])))) == [f"x.tar/{name}"]


def test_a_truncated_tar_is_refused_and_says_what_is_whole(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", ["a/1.png", "a/2.png", "a/3.png"])
    whole = path.read_bytes()
    # Each member is a header and its data, 512 bytes each. Cut in the data, in the header, between two; garbage.
    for cut in (whole[: 2 * 1024 + 522], whole[: 2 * 1024 + 100], whole[: 2 * 1024], whole[: 2 * 1024] + b"x" * 1024):
        path.write_bytes(cut)
        with pytest.raises(DataError, match=r"x\.tar is damaged after 2 images"):
            open_source(str(path))


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    photo = write_folder(tmp_path, ["photo.png"]) / "photo.png"
    with pytest.raises(DataError, match=r"photo\.png is not a tar file\.\nGive a folder"):
        open_source(str(photo))
    with pytest.raises(DataError, match="compressed"):
        open_source(str(write_tar(tmp_path / "x.tar.gz", ["a/1.png"], "w:gz")))
    with pytest.raises(DataError, match="no images in"):
        open_source(str(write_tar(tmp_path / "empty.tar", [])))


# What is not there


def test_a_missing_source_says_what_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"{tmp_path}/nowhere"):
        open_source("nowhere")
    with pytest.raises(DataError, match=r"No file matches '\*\.tar'"):
        open_source("*.tar")
    with pytest.raises(DataError, match="is empty"):
        open_source(str(tmp_path))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="There are no images"):
        open_source(str(tmp_path))
    write_tar(tmp_path / "x.tar", ["a/1.png"])
    with pytest.raises(DataError, match=r"holds tar files.*\n.*\*\.tar'"):
        open_source(str(tmp_path))


# torchvision


def test_torchvision_without_its_files_says_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTSSL_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        open_source("torchvision:CIFAR10")
    assert str(tmp_path) in caught.value.message
    assert f"CIFAR10('{tmp_path}', train=True, download=True)" in str(caught.value.hint)
    with pytest.raises(DataError, match="Did you mean 'FashionMNIST'"):
        open_source("torchvision:FashionMnist")


def test_torchvision_files_are_read_from_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(count, dtype=np.uint8) % 10)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())
    monkeypatch.setenv("LIGHTSSL_DATA", str(tmp_path))
    train, test, how = open_splits("torchvision:MNIST")
    assert (len(train), len(test)) == (30, 20)
    assert "30 train and 20 test" in how
    assert label_names(test)[:2] == ["0 - zero", "1 - one"]
    image = decode(test.read(19))
    np.testing.assert_array_equal(image, np.repeat(images[19][..., None], 3, axis=2))


def test_torchvision_without_a_test_half_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    class Small(datasets.FakeData):
        def __init__(self) -> None:
            super().__init__(size=30, image_size=(3, 8, 8), num_classes=3)

    monkeypatch.setattr(datasets, "FakeData", Small)
    train, test, how = open_splits("torchvision:FakeData")
    assert len(train) + len(test) == 30
    assert train.classes == ["0", "1", "2"]
    assert decode(train.read(0)).shape == (8, 8, 3)
    assert "set aside" in how


# Splits


def test_a_collection_of_one_piece_is_split_by_class_and_seed(tmp_path: Path) -> None:
    sizes = {"a": 40, "b": 10, "c": 3, "d": 1}
    write_folder(tmp_path, [f"{name}/{number}.png" for name, size in sizes.items() for number in range(size)])
    train, test, how = open_splits(str(tmp_path), seed=3)
    assert np.bincount(test.labels, minlength=4).tolist() == [8, 2, 1, 0]
    assert sorted(names_of(train) + names_of(test)) == sorted(names_of(open_source(str(tmp_path))))
    assert all(name.startswith(label) for name, label in zip(names_of(train), label_names(train), strict=True))
    assert "11 of its 54 images" in how
    assert "seed 3" in how
    assert names_of(open_splits(str(tmp_path), seed=3)[1]) == names_of(test)
    assert names_of(open_splits(str(tmp_path), seed=4)[1]) != names_of(test)


def test_test_images_from_elsewhere(tmp_path: Path) -> None:
    here = write_folder(tmp_path / "here", ["a/1.png", "b/2.png"])
    there = write_tar(tmp_path / "there.tar", ["x/a/1.png", "x/b/1.png", "x/b/2.png"])
    train, test, how = open_splits(str(here), str(there))
    assert (len(train), len(test)) == (2, 3)
    assert str(here) in how
    assert str(there) in how


def test_train_and_test_must_have_the_same_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, ["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/c/4.png"])
    with pytest.raises(DataError, match=r"only in .*train: b; only in .*test: c"):
        open_splits(str(tmp_path))


def test_an_evaluation_needs_two_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one class, 'a'"):
        open_splits(str(write_folder(tmp_path / "one", ["a/1.png", "a/2.png"])))
    with pytest.raises(DataError, match="one image a class"):
        open_splits(str(write_folder(tmp_path / "lone", ["a/1.png", "b/2.png"])))


def test_classes_are_drawn_from_evenly() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        labels = rng.permutation(np.repeat(np.arange(5), rng.integers(1, 30, 5)))
        whole = Subset(open_source("sample"), np.arange(len(labels)), "whole")
        whole.labels = labels
        for count in (1, 5, 17, len(labels), 1000):
            drawn = some_of_each_class(whole, count, seed=seed)
            names = [drawn.item_name(index) for index in range(len(drawn))]
            assert len(set(names)) == len(names) == min(count, len(labels))
            assert names == [
                some_of_each_class(whole, count, seed=seed).item_name(index) for index in range(len(names))
            ]
            counts = np.bincount(np.asarray(drawn.labels), minlength=5)
            short = counts < np.bincount(labels, minlength=5)
            assert counts[short].min(initial=999) >= counts.max() - 1  # no class waits while another has two more


def test_a_subset_keeps_names_and_labels(tmp_path: Path) -> None:
    whole = open_source(str(write_folder(tmp_path, ["a/1.png", "b/2.png", "b/3.png"])))
    part = Subset(whole, np.array([2, 0]), "part")
    assert names_of(part) == ["b/3.png", "a/1.png"]
    assert label_names(part) == ["b", "a"]
    assert values(part) == [2, 0]
