"""Data sets of Hugging Face as `save_to_disk` writes them: tables in Arrow's stream format beside some JSON."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compress.data.dataset import load_data
from tests.optional_parts import require


@pytest.fixture
def pa() -> Any:
    require(importlib.util.find_spec("pyarrow") is not None, "pyarrow is not installed")
    return pytest.importorskip("pyarrow")


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def features(names: list[str]) -> dict[str, Any]:
    return {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}


def write(pa: Any, folder: Path, count: int, start: int = 0, **changes: Any) -> Path:
    """What the library writes, in two files."""
    folder.mkdir(parents=True)
    info = json.dumps({"info": {"features": changes.get("features", features(["cat", "dog"]))}})
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": info},
    )
    labels = changes.get("labels", [i % 2 for i in range(count)])
    rows = [{"bytes": changes.get("bytes", png(start + i)), "path": f"{i}.png"} for i in range(count)]
    names = [f"data-0000{k}-of-00002.arrow" for k in range(2)]
    for k, name in enumerate(names):
        table = pa.table([rows[k::2], labels[k::2]], schema=schema)
        table = table.select(changes.get("columns", ["image", "label"]))
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_saved_data_set_is_read(pa: Any, tmp_path: Path) -> None:
    data = load_data(write(pa, tmp_path / "d", 20))
    assert data.preprocessing.class_names == ("cat", "dog")
    pixels = {np.asarray(Image.open(io.BytesIO(png(i)))).tobytes(): i % 2 for i in range(20)}
    for split in (data.train, data.val, data.test):
        assert all(pixels[x.tobytes()] == y for x, y in zip(split.images, split.labels, strict=True))
    assert len(data.train) + len(data.val) + len(data.test) == 20


def test_its_splits_are_kept(pa: Any, tmp_path: Path) -> None:
    for name, count, start in (("train", 20, 0), ("validation", 6, 100), ("test", 4, 200)):
        write(pa, tmp_path / name, count, start)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "test"]}))
    data = load_data(tmp_path)
    assert [len(split) for split in (data.train, data.val, data.test)] == [20, 6, 4]


def write_dict(pa: Any, folder: Path, **of_split: dict[str, Any]) -> Path:
    for i, (name, changes) in enumerate(of_split.items()):
        write(pa, folder / name, 12, 100 * i, **changes)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(of_split)}))
    return folder


@pytest.mark.parametrize("labels", [[-1] * 12, [None] * 12])
def test_a_split_without_labels_is_left_out_and_said(pa: Any, labels: list[int | None], tmp_path: Path) -> None:
    data = load_data(write_dict(pa, tmp_path / "d", train={}, test={"labels": labels}))
    assert len(data.train) + len(data.val) + len(data.test) == 12
    assert data.facts["left_out"] == {"in the split test, which has no labels": 12}
    data = load_data(write_dict(pa, tmp_path / "without", train={}, test={"columns": ["image"]}))
    assert data.facts["left_out"] == {"in the split test, which has no labels": 12}


def test_splits_whose_classes_or_columns_differ_are_refused(pa: Any, tmp_path: Path) -> None:
    other = {"features": features(["dog", "cat"])}
    with pytest.raises(ValueError, match="train and test must have the same columns and classes"):
        load_data(write_dict(pa, tmp_path / "order", train={}, test=other))
    with pytest.raises(ValueError, match="one column of type Image is needed, got none"):
        load_data(write_dict(pa, tmp_path / "no_images", train={}, test={"columns": ["label"]}))
    with pytest.raises(ValueError, match="one column of type ClassLabel is needed, got none"):
        load_data(write(pa, tmp_path / "no_labels", 8, columns=["image"]))


def test_what_is_no_such_data_set_is_named(pa: Any, tmp_path: Path) -> None:
    cases = {
        "elsewhere": ({"bytes": None}, "only the name of a file"),
        "unlabeled": ({"labels": [-1] * 8}, "each image of train needs a label of 0..1"),
        "texts": ({"features": {"text": {"_type": "Value"}}}, "one column of type Image is needed, got none"),
    }
    for name, (changes, said) in cases.items():
        with pytest.raises(ValueError, match=said):
            load_data(write(pa, tmp_path / name, 8, **changes))
    cut = write(pa, tmp_path / "cut", 8)
    file = cut / "data-00001-of-00002.arrow"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match="not an arrow file"):
        load_data(cut)
    (cut / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../out.arrow"}]}))
    with pytest.raises(ValueError, match="link is broken or points outside"):
        load_data(cut)
    (cut / "state.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"state.json: cannot be read"):
        load_data(cut)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=r"pip install fitnas\[huggingface\]"):
        load_data(tmp_path)
