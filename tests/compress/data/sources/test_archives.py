"""A zip or tar is read as its folder is, and nothing in it reaches beyond the cache folder."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.data.dataset import load_data
from compress.data.sources import archives


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "cache_folder", lambda: tmp_path / "cache")


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def members() -> dict[str, bytes]:
    found = {
        f"photos/train/{name}/{i}.png": png(100 * k + i) for k, name in enumerate(("cat", "dog")) for i in range(8)
    }
    return {**found, "__MACOSX/photos/train/cat/._0.png": b"x", "photos/notes.txt": b"not read"}


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tar_info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        archive.addfile(tar_info("./photos", kind=tarfile.DIRTYPE))
        for name, data in files.items():
            archive.addfile(tar_info(f"./{name}", len(data)), io.BytesIO(data))
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "zip": lambda path: write_zip(path, members()),
    "tar": lambda path: write_tar(path, members()),
    "tar.gz": lambda path: write_tar(path, members(), "w:gz"),
    "tar.bz2": lambda path: write_tar(path, members(), "w:bz2"),
    "tar.xz": lambda path: write_tar(path, members(), "w:xz"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_an_archive_is_read_as_its_folder_is(tmp_path: Path, kind: str) -> None:
    for name, data in members().items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    wanted = load_data(tmp_path / "folder")
    found = load_data(WRITERS[kind](tmp_path / f"photos.{kind}"))
    assert np.array_equal(found.test.images, wanted.test.images)
    assert found.test_names == wanted.test_names
    assert found.facts == wanted.facts
    texts = list((tmp_path / "cache").rglob("notes.txt"))
    assert [path.stat().st_size for path in texts] == [0]


def test_a_zip_may_part_names_as_windows_does(tmp_path: Path) -> None:
    files = {"photos\\train\\cat\\": b""} | {name.replace("/", "\\"): data for name, data in members().items()}
    data = load_data(write_zip(tmp_path / "d.zip", files))
    assert data.preprocessing.class_names == ("cat", "dog")
    assert len(data.train) + len(data.val) + len(data.test) == 16


def test_an_archive_is_unpacked_once_and_again_where_it_changed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", members())
    folder = archives.unpacked(path)
    assert archives.unpacked(path) == folder
    write_zip(path, {**members(), "photos/train/cat/9.png": png(9)})
    assert archives.unpacked(path) != folder


BAD_NAMES = ["../out.png", "/tmp/out.png", "a/../../out.png", "C:/out.png", "..\\out.png", "x" * 300 + ".png"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("writer", [write_zip, write_tar])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str, writer: Callable[..., Path]) -> None:
    path = writer(tmp_path / "a.archive", {"cat/0.png": png(0)})
    if writer is write_zip:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, png(1))
    else:
        with tarfile.open(path, "w") as archive:
            archive.addfile(tar_info(name, 3), io.BytesIO(b"abc"))
    with pytest.raises(ValueError, match=r"leads out of the folder|cannot be unpacked") as caught:
        load_data(path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("out.png"))
    assert not [each for each in (tmp_path / "cache" / "archives").iterdir() if each.is_dir()]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tar_info("cat/0.png", kind=kind, link="/etc/passwd"))
    with pytest.raises(ValueError, match=r"'cat/0.png' in it is a link or a device"):
        load_data(tmp_path / "a.tar")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("cat/0.png")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(ValueError, match=r"'cat/0.png' in it is a link or a device"):
        load_data(tmp_path / "a.zip")


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tar_info("cat/0.png", 1), io.BytesIO(b"x"))
    with pytest.raises(ValueError, match=r"'cat/0.png' in it is there twice"):
        load_data(tmp_path / "a.tar")


def test_bombs_are_refused_by_what_they_say_and_by_what_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_MOST_BYTES", 100_000)
    path = write_zip(tmp_path / "a.zip", {f"cat/{i}.png": bytes(5_000_000) for i in range(3)})
    with pytest.raises(ValueError, match=r"takes the archive to more than"):
        load_data(path)
    raw = bytearray(path.read_bytes())  # the same, with headers that say one byte
    for at in [i for i in range(len(raw)) if raw[i : i + 4] == b"PK\x01\x02"]:
        raw[at + 24 : at + 28] = (1).to_bytes(4, "little")
    (tmp_path / "b.zip").write_bytes(raw)
    with pytest.raises(ValueError, match=r"takes the archive to more than|truncated or damaged archive"):
        load_data(tmp_path / "b.zip")
    tar = write_tar(tmp_path / "c.tar", {"notes.txt": bytes(50_000_000), "cat/0.png": png(0)})
    (tmp_path / "c.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(ValueError, match=r"unpacks to far more than it holds"):
        load_data(tmp_path / "c.tar.gz")
    assert sum(each.stat().st_size for each in (tmp_path / "cache").rglob("*") if each.is_file()) == 0


def test_many_members_are_a_bomb_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MOST_BYTES", 100_000)
    for writer, name in ((write_zip, "a.zip"), (lambda p, f: write_tar(p, f, "w:gz"), "a.tar.gz")):
        path = writer(tmp_path / name, {f"cat/{i}.png": bytes(60_000) for i in range(4)})
        with pytest.raises(ValueError, match=r"takes the archive to more than 100,\d{3} bytes|100 times its size"):
            load_data(path)


def test_a_header_of_a_tar_takes_no_memory(tmp_path: Path) -> None:
    info = tar_info("pax", 2**32, kind=tarfile.XHDTYPE)
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(4096))
    with pytest.raises(ValueError, match="a header of more than 64 MiB"):
        load_data(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_archive_is_refused_in_one_line(tmp_path: Path, kind: str, share: float) -> None:
    whole = WRITERS[kind](tmp_path / f"a.{kind}").read_bytes()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"truncated or damaged archive") as caught:
        load_data(path)
    assert "\n" not in str(caught.value)


def test_a_tar_that_is_cut_between_two_files_is_refused(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", members()).read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[: whole.index(b"./photos/train/dog/5.png")])
    with pytest.raises(ValueError, match=r"truncated or damaged archive \(it is cut off\)"):
        load_data(tmp_path / "b.tar")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    raw = bytearray(write_zip(tmp_path / "a.zip", {"cat/0.png": png(0)}).read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "b.zip").write_bytes(raw)
    with pytest.raises(ValueError, match=r"'cat/0.png' in it is encrypted"):
        load_data(tmp_path / "b.zip")


def test_errors_name_the_archive_and_not_the_cache(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"cat/0.txt": b"x", "dog/0.png": png(0)})
    with pytest.raises(ValueError, match="class 'cat'") as caught:
        load_data(path)
    assert f"{path}/cat holds no image" in str(caught.value)
