"""Kept listings: that one is used, and that no change ever goes unseen. All changes here are made to real files."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightssl.data import listing
from lightssl.data.sources import open_source
from lightssl.errors import DataError

HOUR = 3600.0
NAMES = ["a/1.png", "a/2.png", "b/deep/er/3.png", "c/4.png"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where listings are kept, of any size."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LIGHTSSL_CACHE", str(folder))
    monkeypatch.setattr(listing, "MIN_IMAGES", 1)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder that was last changed long ago, with a link to a folder, and a link to nothing."""
    folder = tmp_path / "data"
    add(folder, *NAMES)
    add(tmp_path / "elsewhere", "5.png")
    add(tmp_path / "other", "6.png", "7.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "to_come").symlink_to(tmp_path / "unmounted")
    age(tmp_path)
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | str], tuple[list[str], int]]:
    """Open images: returns their names, and how many folders and tar files were looked into for them."""
    looks = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **options: Any) -> Any:
            nonlocal looks
            looks += 1
            return function(*arguments, **options)

        return count

    def names(spec: Path | str) -> tuple[list[str], int]:
        before = looks
        source = open_source(str(spec))
        return [source.item_name(index) for index in range(len(source))], looks - before

    monkeypatch.setattr(os, "scandir", counted(os.scandir))
    monkeypatch.setattr(tarfile, "open", counted(tarfile.open))
    return names


def add(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def age(path: Path, seconds: float = HOUR) -> None:
    """Set the times of a file, or of a folder and all in it, back."""
    for inner in [path, *path.rglob("*")]:
        if inner.exists():
            time = inner.stat().st_mtime - seconds
            os.utime(inner, (time, time))


def write_tar(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return path


def relisted(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names without any cache."""
    with monkeypatch.context() as patch:
        patch.setenv("LIGHTSSL_CACHE", os.devnull)
        source = open_source(str(path))
    return [source.item_name(index) for index in range(len(source))]


def test_a_folder_that_did_not_change_is_not_looked_into_again(cache: Path, data: Path, opened) -> None:
    names, looks = opened(data)
    assert names == [*NAMES, "linked/5.png"]
    assert looks == 7
    assert len(list(cache.iterdir())) == 1
    assert opened(data) == (names, 0)
    source = open_source(str(data))
    assert source.classes == ["a", "b", "c", "linked"]
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 1, 2, 3]
    assert [source.read(index) for index in range(5)] == [name.encode() for name in [*NAMES, "5.png"]]


def relink(link: Path, target: Path) -> None:
    link.unlink()
    link.symlink_to(target)


def swap(a: Path, b: Path) -> None:
    a.rename(a.with_name("aside"))
    b.rename(a)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file is added": lambda data: add(data, "8.png"),
    "a file is added deep down": lambda data: add(data, "b/deep/er/8.png"),
    "a file is added behind a link": lambda data: add(data / "linked", "8.png"),
    "a file is removed": lambda data: (data / "b/deep/er/3.png").unlink(),
    "a file is renamed": lambda data: (data / "a/1.png").rename(data / "a/0.png"),
    "a file is moved": lambda data: (data / "a/1.png").rename(data / "c/1.png"),
    "a file is hidden": lambda data: (data / "a/1.png").rename(data / "a/.1.png"),
    "a folder is added": lambda data: add(data, "b/new/8.png"),
    "a folder is renamed": lambda data: (data / "b/deep").rename(data / "b/low"),
    "a folder is moved out": lambda data: (data / "b/deep").rename(data.parent / "deep"),
    "a folder is replaced": lambda data: swap(data / "c", data.parent / "other"),
    "the folder itself is replaced": lambda data: swap(data, data.parent / "other"),
    "a link is aimed elsewhere": lambda data: relink(data / "linked", data.parent / "other"),
    "a link comes to lead somewhere": lambda data: add(data.parent / "unmounted", "8.png"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("backdated", [False, True], ids=["", "and times are set back"])
def test_every_change_of_a_folder_is_seen(
    cache: Path, data: Path, opened, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object], backdated: bool
) -> None:
    times = {path: path.stat().st_mtime_ns for path in data.parent.rglob("*") if path.is_dir()}
    before, _ = opened(data)
    assert opened(data) == (before, 0)
    change(data)
    for path, time in times.items() if backdated else ():
        if path.exists():
            os.utime(path, ns=(time, time))
    after, looks = opened(data)
    assert looks
    assert after == relisted(data, monkeypatch) != before
    age(data)
    assert opened(data)[0] == after
    assert opened(data) == (after, 0)


def test_a_link_further_up_is_followed_anew(cache: Path, tmp_path: Path, data: Path, opened) -> None:
    (tmp_path / "current").symlink_to(tmp_path)
    assert opened(tmp_path / "current" / "data")[0] == [*NAMES, "linked/5.png"]
    add(tmp_path / "next" / "data", "8.png")
    relink(tmp_path / "current", tmp_path / "next")
    assert opened(tmp_path / "current" / "data")[0] == ["8.png"]


def test_a_change_while_a_folder_is_listed_is_seen_the_next_time(
    cache: Path, data: Path, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def meanwhile(path: Path) -> Any:
        if Path(path) != data:  # which has been read by now
            add(data, "late.png")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", meanwhile)
        assert opened(data)[0] == [*NAMES, "linked/5.png"]
    assert "late.png" in opened(data)[0]


@pytest.mark.parametrize("seconds", [0, 1, -HOUR], ids=["now", "a second ago", "in the future"])
def test_a_folder_that_has_just_changed_is_not_trusted(cache: Path, data: Path, opened, seconds: float) -> None:
    # One more change within a tick of the clock would leave its time as it is.
    os.utime(data / "b" / "deep")
    age(data / "b" / "deep", seconds)
    names, looks = opened(data)
    assert opened(data) == (names, looks)
    assert not cache.exists()
    age(data)
    opened(data)
    assert opened(data)[1] == (0 if seconds >= 0 else looks)


def test_a_file_system_without_times_is_not_trusted(cache: Path, data: Path, opened) -> None:
    os.utime(data / "c", (0, 0))
    opened(data)
    assert opened(data)[1] == 7
    assert not cache.exists()


def test_tar_shards_that_did_not_change_are_not_indexed_again(cache: Path, tmp_path: Path, opened) -> None:
    write_tar(tmp_path / "1.tar", "train/cat/1.png", "test/cat/1.png")
    write_tar(tmp_path / "2.tar", "train/dog/2.png", "test/dog/2.png", "test/dog/3.png")
    for shard in tmp_path.glob("*.tar"):
        age(shard)
    shards = f"{tmp_path}/*.tar"
    names, looks = opened(shards)
    assert names == ["1.tar/train/cat/1.png", "2.tar/train/dog/2.png"]
    assert looks == 3  # the two, and the folder for what matches
    assert len(list(cache.iterdir())) == 1
    assert opened(shards) == (names, 1)
    test = open_source(shards, split="test")
    assert [test.read(index) for index in range(3)] == [b"test/cat/1.png", b"test/dog/2.png", b"test/dog/3.png"]
    assert test.labels is not None
    assert test.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("backdated", [False, True])
def test_every_change_of_tar_shards_is_seen(cache: Path, tmp_path: Path, opened, backdated: bool) -> None:
    first, second = (write_tar(tmp_path / f"{n}.tar", f"cat/{n}.png") for n in (1, 2))
    age(first)
    age(second)
    shards = f"{tmp_path}/*.tar"
    opened(shards)
    before = first.stat()
    write_tar(first, "cat/9.png")
    assert first.stat().st_size == before.st_size
    if backdated:
        os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert opened(shards)[0] == ["1.tar/cat/9.png", "2.tar/cat/2.png"]
    age(write_tar(tmp_path / "3.tar", "cat/3.png"))
    assert opened(shards)[0] == ["1.tar/cat/9.png", "2.tar/cat/2.png", "3.tar/cat/3.png"]
    second.unlink()
    assert opened(shards)[0] == ["1.tar/cat/9.png", "3.tar/cat/3.png"]


def test_a_shard_that_has_just_been_written_is_not_trusted(cache: Path, tmp_path: Path, opened) -> None:
    shard = write_tar(tmp_path / "1.tar", "cat/1.png")
    assert opened(shard)[1] == opened(shard)[1] == 1
    assert not cache.exists()


def test_a_damaged_shard_is_refused_each_time(cache: Path, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "1.tar", "cat/1.png")
    shard.write_bytes(shard.read_bytes()[:1024] + b"x" * 1024)
    age(shard)
    for _ in range(2):
        with pytest.raises(DataError, match="damaged after 1 images"):
            open_source(str(shard))
    assert not cache.exists()


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def spring(file: Path) -> None:
    names = ("text", "ends", "places", "watched_text", "watched_ends", "states")
    trap = np.array([Trap(file.with_name("sprung"))], object)
    with file.open("wb") as out:
        np.savez(out, allow_pickle=True, **dict.fromkeys(names, trap))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for position in range(60, len(content), 97):
        content[position] ^= 0xFF
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-200]),
    "garbage": lambda file: file.write_bytes(b"PK\x03\x04 and no more"),
    "bits flipped": flip,
    "other contents": lambda file: np.savez(file, a=np.zeros(3)),
    "an array alone": lambda file: file.write_bytes(np.lib.format.magic(1, 0) + b"\x00\x00"),
    "a pickle": spring,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_listing_is_not_used_and_is_replaced(
    cache: Path, data: Path, opened, damage: Callable[[Path], object]
) -> None:
    expected = opened(data)
    (file,) = cache.iterdir()
    damage(file)
    assert opened(data) == expected
    assert list(cache.iterdir()) == [file]
    assert opened(data) == (expected[0], 0)


def test_nowhere_to_keep_listings_is_no_error(
    cache: Path, tmp_path: Path, data: Path, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for place in (os.devnull, str(tmp_path / "file"), str(tmp_path / "file" / "below"), "~nobody-of-that-name/cache"):
        monkeypatch.setenv("LIGHTSSL_CACHE", place)
        for _ in range(2):
            assert opened(data) == ([*NAMES, "linked/5.png"], 7)
    assert (tmp_path / "file").read_bytes() == b""


def test_a_full_disk_is_no_error(cache: Path, data: Path, opened) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # bytes that any file may have
    try:
        names, _ = opened(data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names == [*NAMES, "linked/5.png"]
    assert list(cache.iterdir()) == []


def test_where_listings_lie(cache: Path, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for variable, folder in (
        ("LIGHTSSL_CACHE", cache),
        ("XDG_CACHE_HOME", tmp_path / "xdg" / "lightssl"),
        ("HOME", tmp_path / "home" / ".cache" / "lightssl"),
    ):
        assert not folder.exists()
        open_source(str(data))
        assert len(list(folder.iterdir())) == 1
        monkeypatch.delenv(variable)


def test_small_collections_leave_nothing_behind(
    cache: Path, tmp_path: Path, data: Path, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MIN_IMAGES", 6)
    opened(data)
    assert opened(data)[1] == 7
    assert not cache.exists()
    add(data, "8.png")
    age(data)
    opened(data)
    assert opened(data)[1] == 0


def test_a_folder_has_one_listing_however_it_is_named(
    cache: Path, data: Path, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, _ = opened(data)
    monkeypatch.chdir(data.parent)
    assert opened("data") == opened("data/") == (names, 0)
    assert opened(data / "a") == (["1.png", "2.png"], 1)


def test_names_that_are_no_valid_text_are_kept(cache: Path, data: Path, opened) -> None:
    try:
        with open(os.fsencode(data) + b"/a/\xff.png", "wb"):  # noqa: PTH123 (a name in bytes)
            pass
    except OSError:
        pytest.skip("this file system takes only valid text")
    age(data)
    names, _ = opened(data)
    assert "a/\\xff.png" in names
    assert opened(data) == (names, 0)
    assert open_source(str(data)).read(names.index("a/\\xff.png")) == b""
