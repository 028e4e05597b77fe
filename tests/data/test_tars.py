"""The index of a tar file against tarfile's own reading, header by header."""

import io
import tarfile
from pathlib import Path

import pytest

from lightssl.data.sources import open_source
from lightssl.errors import DataError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
PLAIN = ["cat/1.png", "cat/2.png", f"cat/{'x' * 87}.png", "cat/3.png"]  # one fills the field for the name
KINDS = [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def write(path: Path, members: list[tarfile.TarInfo], how: int, **options: object) -> None:
    with tarfile.open(path, "w", format=how, **options) as archive:
        for position, info in enumerate(members):
            archive.addfile(info, io.BytesIO(bytes([position]) * info.size))


def expected(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        images = [info for info in archive if info.isreg() and info.name.endswith(".png")]
        return [(info.name.removeprefix("./"), archive.extractfile(info).read()) for info in images]


def found(path: Path) -> list[tuple[str, bytes]]:
    source = open_source(str(path))
    return [(source.item_name(index).removeprefix("x.tar/"), source.read(index)) for index in range(len(source))]


@pytest.mark.parametrize("how", FORMATS.values(), ids=FORMATS.keys())
def test_headers_of_every_kind_are_read_as_tarfile_does(tmp_path: Path, how: int) -> None:
    names = [*PLAIN, f"{'deep/' * 25}1.png", "cat/ü.png", "cat/4.png", "cat/notes.txt"]
    names += [] if how == tarfile.USTAR_FORMAT else [f"cat/{'y' * 300}.png", "cat/5.png"]
    members = [member(f"./{kind[0]}/{name}", 100 * i, kind) for kind in KINDS for i, name in enumerate(names)]
    for position, info in enumerate(members):
        if not info.isreg():
            info.size = 0
        elif position % 5 == 0 and how != tarfile.USTAR_FORMAT:
            info.uid = 8**8  # too large for its field: GNU writes it in base 256, pax into a header of its own
    write(tmp_path / "x.tar", members, how)
    read = found(tmp_path / "x.tar")
    assert read == expected(tmp_path / "x.tar")
    assert len(read) == 3 * (len(names) - 1)


def test_sizes_at_the_edges_of_a_block(tmp_path: Path) -> None:
    members = [member(f"cat/{size}.png", size) for size in (0, 1, 511, 512, 513, 1024, 70_000, 0)]
    write(tmp_path / "x.tar", members, tarfile.USTAR_FORMAT)
    assert found(tmp_path / "x.tar") == expected(tmp_path / "x.tar")


def test_what_a_global_header_says_holds_for_plain_ones(tmp_path: Path) -> None:
    members = [member(f"cat/{name}.png", 10) for name in range(5)]
    write(tmp_path / "x.tar", members, tarfile.PAX_FORMAT, pax_headers={"size": "3"})
    read = found(tmp_path / "x.tar")
    assert read == expected(tmp_path / "x.tar")
    assert {len(content) for _, content in read} == {3}


@pytest.mark.parametrize("at", [0, 124, 130, 148, 156, 345, 511])
def test_a_header_with_a_flipped_bit_is_damage(tmp_path: Path, at: int) -> None:
    path = tmp_path / "x.tar"
    write(path, [member(f"cat/{name}.png", 10) for name in range(5)], tarfile.USTAR_FORMAT)
    content = bytearray(path.read_bytes())
    content[3 * 1024 + at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.tar is damaged after 3 images"):
        open_source(str(path))


@pytest.mark.parametrize("size", [b"77777777777", b"-0000001000", b"-0000000777", b"99999999999"])
def test_a_size_that_cannot_be_is_damage(tmp_path: Path, size: bytes) -> None:
    path = tmp_path / "x.tar"
    write(path, [member(f"cat/{name}.png", 10) for name in range(5)], tarfile.USTAR_FORMAT)
    content = bytearray(path.read_bytes())
    header = memoryview(content)[3 * 1024 : 3 * 1024 + 512]
    header[124:135] = size
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.tar is damaged after 3 images"):
        open_source(str(path))
