"""Images: sources, splits, preprocessing, and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from compress import Artifact, Context
from compress.data.dataset import Dataset, load_data
from compress.data.in_memory import arrays_dataset
from compress.data.preprocessing import Preprocessing
from hw_profiles import load_device
from search_spaces import preset


def image(seed: int, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> Image.Image:
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode)


def write_folder(root: Path, per_class: int = 10, mode: str = "RGB", size: tuple[int, int] = (20, 16)) -> Path:
    for i, name in enumerate(("cat", "dog", "ünïcode")):
        (root / name).mkdir(parents=True)
        for j in range(per_class):
            image(100 * i + j, size, mode).save(root / name / f"{j}.png")
    return root


def keys(split_images: np.ndarray) -> set[bytes]:
    return {single.tobytes() for single in split_images}


def assert_disjoint(data: Dataset) -> None:
    parts = [keys(s.images) for s in (data.train, data.val, data.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_digits_are_all_there_once_and_stratified() -> None:
    data = load_data("digits", seed=3)
    assert len(data.train) + len(data.val) + len(data.test) == len(load_digits().target)
    counts = np.bincount(data.test.labels, minlength=10)
    assert counts.min() >= 34
    assert data.train.images.shape[1:] == (32, 32, 1)


def test_a_folder_that_is_called_digits_is_not_taken_for_the_digits_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert load_data("./digits").num_classes == 3
    assert not caplog.messages
    assert load_data("digits").num_classes == 10
    assert "the built-in dataset is used; for what is called so here, use ./digits" in caplog.text


def test_the_seed_decides_the_splits() -> None:
    one, same, other = (load_data("digits", seed=s) for s in (0, 0, 1))
    assert np.array_equal(one.test.images, same.test.images)
    assert not np.array_equal(one.test.images, other.test.images)


@pytest.mark.parametrize(
    "source", [".", "./", "../cats", "../cats/", "dog/..", "{root}", "{root}/", "{root}/dog/..", "{root}/."]
)
def test_a_dataset_is_called_as_its_folder_is(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "cats", size=(8, 8))
    monkeypatch.chdir(root)
    assert load_data(source.format(root=root)).name == "cats"
    monkeypatch.chdir(root / "dog")
    assert load_data("..").name == "cats"


def test_what_holds_arrays_equals_itself_alone() -> None:
    data = load_data("digits", size=8)
    artifact = Artifact(source=preset("resnet8"), weights={}, preprocessing=data.preprocessing)
    for each in (data.train, data, Context(data=data, device=load_device("host")), artifact):
        same = replace(each)
        assert each == each  # noqa: PLR0124
        assert each != same
        assert len({each, same, each}) == 2


def test_a_folder_of_classes_is_split(tmp_path: Path) -> None:
    data = load_data(str(write_folder(tmp_path / "d")))
    assert data.preprocessing.class_names == ("cat", "dog", "ünïcode")
    assert (len(data.train), len(data.val), len(data.test)) == (21, 3, 6)
    assert data.preprocessing.input_shape == (3, 16, 20)
    assert_disjoint(data)


def test_a_given_test_folder_is_the_test_set(tmp_path: Path) -> None:
    write_folder(tmp_path / "d" / "train")
    write_folder(tmp_path / "d" / "test", per_class=2)
    data = load_data(str(tmp_path / "d"))
    assert len(data.test) == 6
    assert len(data.train) + len(data.val) == 30


def test_gray_folders_have_one_channel_and_other_sizes_are_resized(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", mode="L")
    image(7, (31, 64), "L").save(root / "cat" / "tall.png")
    data = load_data(str(root))
    assert data.preprocessing.channels == 1
    assert data.train.images.shape[1] == data.train.images.shape[2]
    assert load_data(str(root), size=24).preprocessing.input_shape == (1, 24, 24)


def test_npz_files_are_read(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (40, 9, 7), dtype=np.uint8)
    y = np.tile([3, 8], 20)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
    data = load_data(str(tmp_path / "d.npz"))
    assert data.preprocessing.class_names == ("3", "8")
    assert data.preprocessing.input_shape == (1, 9, 7)
    assert set(data.train.labels) == {0, 1}
    assert load_data(str(tmp_path / "d.npz"), size=8).test.images.shape == (4, 8, 8, 1)


def test_validation_images_of_an_npz_file_are_used(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 9, 7), dtype=np.uint8)
    y = np.tile([3, 8], 20)
    arrays = {"x_train": x, "y_train": y, "x_test": x[:4], "y_test": y[:4], "x_val": x[4:10]}
    np.savez(tmp_path / "d.NPZ.npz", **arrays, y_val=y[4:10])
    (tmp_path / "d.NPZ.npz").rename(tmp_path / "d.NPZ")
    data = load_data(str(tmp_path / "d.NPZ"))
    assert np.array_equal(data.val.images[..., 0], x[4:10])
    assert (len(data.train), len(data.test)) == (40, 4)
    for changes, said in (
        ({}, "missing: y_val"),
        ({"y_val": np.full(6, 5)}, "the class 5 of y_val has no images in x_train"),
        ({"x_val": x[:6, :2], "y_val": y[:6]}, r"the images of x_train are \(9, 7, 1\), of x_val \(2, 7, 1\)"),
    ):
        np.savez(tmp_path / "e.npz", **arrays | changes)
        with pytest.raises(ValueError, match=said):
            load_data(str(tmp_path / "e.npz"))


def test_facts_count_the_images_of_each_class(tmp_path: Path) -> None:
    data = load_data(str(write_folder(tmp_path / "d")))
    assert data.facts["counts"]["train"] == {"cat": 7, "dog": 7, "ünïcode": 7}
    assert data.facts["counts"]["test"] == {"cat": 2, "dog": 2, "ünïcode": 2}
    assert data.facts["skipped"] == {"count": 0, "files": []}
    json.dumps(data.facts)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_train=np.array([{}], object), y_train=[0], x_test=[0], y_test=[0])
    with pytest.raises(ValueError, match="pickle"):
        load_data(str(tmp_path / "d.npz"))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x_train": 1}, "missing: y_train, x_test, y_test"),
        ({"x_train": np.full((4, 3, 3), np.nan), "y_train": [0, 1, 0, 1]}, "x_train: images must be uint8 .* with NaN"),
        ({"x_train": np.zeros((4, 0, 3), np.uint8), "y_train": [0, 1, 0, 1]}, "images must be uint8"),
        ({"x_train": np.zeros((4, 3, 3), np.uint8), "y_train": [0.0, 1, 0, 1]}, "y_train: labels must be integers"),
        ({"x_train": np.zeros((4, 3, 3), np.uint8), "y_train": [0, 1]}, "one for each of 4 images"),
    ],
)
def test_wrong_npz_files_are_refused(tmp_path: Path, arrays: dict[str, object], said: str) -> None:
    rest = {"x_test": arrays["x_train"], "y_test": arrays["y_train"]} if len(arrays) > 1 else {}
    np.savez(tmp_path / "d.npz", **arrays, **rest)
    with pytest.raises(ValueError, match=said):
        load_data(str(tmp_path / "d.npz"))


def test_an_npz_file_whose_parts_do_not_agree_is_refused(tmp_path: Path) -> None:
    x, y = np.zeros((4, 3, 3), np.uint8), [0, 1, 0, 1]
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:, :2], y_test=y)
    with pytest.raises(ValueError, match=r"the images of x_train are \(3, 3, 1\), of x_test \(2, 3, 1\)"):
        load_data(str(tmp_path / "d.npz"))
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=[0, 1, 7, 1])
    with pytest.raises(ValueError, match="the class 7 of y_test has no images in x_train"):
        load_data(str(tmp_path / "d.npz"))


def test_an_array_that_says_it_is_larger_than_its_file_takes_no_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8)})
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"x_train is truncated, its header declares uint8 \(1000000000000, 8, 8\)"):
        load_data(str(tmp_path / "d.npz"))


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_data(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images found"):
        load_data(str(tmp_path / "empty"))
    (tmp_path / "fake.npz").write_bytes(b"zip?")
    with pytest.raises(ValueError, match=r"not an .npz file"):
        load_data(str(tmp_path / "fake.npz"))
    root = write_folder(tmp_path / "d")
    (root / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(ValueError, match=r"1 of 31 images cannot be read: cat/broken.jpg .*unreadable=skip"):
        load_data(str(root))


def test_one_class_or_one_image_of_a_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one" / "cat").mkdir(parents=True)
    image(0).save(tmp_path / "one" / "cat" / "0.png")
    with pytest.raises(ValueError, match="at least two classes are needed, got 1"):
        load_data(str(tmp_path / "one"))
    root = write_folder(tmp_path / "d")
    (root / "rare").mkdir()
    image(0).save(root / "rare" / "0.png")
    with pytest.raises(
        ValueError, match=r"class 'rare' has 1 images, at least 3 are needed \(train, test, val: one each\)"
    ):
        load_data(str(root))


def test_test_classes_without_training_images_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "d" / "train")
    write_folder(tmp_path / "d" / "test")
    (tmp_path / "d" / "test" / "bird").mkdir()
    with pytest.raises(ValueError, match="the class 'bird' has no folder under train/"):
        load_data(str(tmp_path / "d"))


def test_preprocessing_is_the_same_for_an_opened_image_and_for_the_loaded_set(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", size=(40, 30))
    data = load_data(str(root), size=24).resized(16, 16)
    record = Preprocessing.from_json(data.preprocessing.to_json())
    assert record == data.preprocessing
    assert record.sizes == ((24, 24), (16, 16))
    alone = {record.image(Image.open(path)).tobytes() for path in root.rglob("*.png")}
    assert keys(data.train.images) <= alone


def test_normalized_training_images_have_mean_zero_and_deviation_one(tmp_path: Path) -> None:
    data = load_data(str(write_folder(tmp_path / "d")))
    x = data.preprocessing.tensor(data.train.images)
    assert x.dtype == np.float32
    assert np.abs(x.mean(axis=(0, 2, 3))).max() < 1e-2
    assert np.abs(x.std(axis=(0, 2, 3)) - 1).max() < 1e-2


@pytest.mark.parametrize("text", ["[]", "{}", "{", '{"schema": 5}'])
def test_wrong_records_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"record|schema"):
        Preprocessing.from_json(text)


LABELS = np.arange(60) % 3
LABEL_FORMS = {
    "a column": LABELS[:, None],
    "one-hot": np.eye(3, dtype=np.float32)[LABELS],
    "text": np.array(["cat", "dog", "emu"])[LABELS],
    "bytes": LABELS.astype(np.uint8),
}


@pytest.mark.parametrize("form", LABEL_FORMS)
def test_labels_come_in_the_forms_that_people_have(tmp_path: Path, form: str) -> None:
    y = LABEL_FORMS[form]
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x_train=x[:45], y_train=y[:45], x_test=x[45:], y_test=y[45:])
    data, given = load_data(str(tmp_path / "d.npz")), arrays_dataset(x, y)
    assert np.array_equal(data.test.labels, LABELS[45:])
    assert data.preprocessing.class_names == (("cat", "dog", "emu") if form == "text" else ("0", "1", "2"))
    label_of = {image.tobytes(): label for image, label in zip(x, LABELS, strict=True)}
    assert all(
        label_of[image.tobytes()] == label for image, label in zip(given.train.images, given.train.labels, strict=True)
    )


@pytest.mark.parametrize(
    "labels", [np.zeros((60, 2)), np.arange(60) / 7, np.zeros((59, 1), int), np.zeros((60, 1, 1), int), None, "cat"]
)
def test_labels_of_no_such_form_are_refused(labels: object) -> None:
    x = np.zeros((60, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"labels must be integers or text, one for each of 60 images"):
        arrays_dataset(x, labels)
