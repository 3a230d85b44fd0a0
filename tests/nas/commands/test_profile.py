"""``nas profile`` on real models: what is printed, the page, and what is told about wrong arguments."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.torch_io import fvcore_counts
from nas.commands.main import main
from search_spaces import preset, sample

ROOT = Path(__file__).parents[3]
HOSTILE = '<script>alert(1)</script>\x1b[31m"&\r\nred'


class Page(HTMLParser):
    """The text of every cell, and every address that the page names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset", "action")]
        if tag == "td":
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


@pytest.fixture
def models(tmp_path: Path) -> dict[str, str]:
    """One of each kind of model, by kind."""
    workload = preset("mobilenetv2_035", input_shape=(3, 32, 32)).workload()
    (tmp_path / "q.onnx").write_bytes(write_onnx(workload, quantization=fixed_quantization(workload)))
    arch = sample("mobilenet", seed=1, input_shape=(3, 32, 32), num_classes=10)
    (tmp_path / "arch.json").write_text(arch.to_json())
    return {
        "preset": "resnet8",
        "file": str(tmp_path / "q.onnx"),
        "arch": str(tmp_path / "arch.json"),
        "timm": "timm:resnet18",
    }


def profiled(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["profile", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["profile", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def number(lines: list[str], name: str) -> float:
    line = next(line for line in lines if line.startswith(f"{name} "))
    return float(line.removeprefix(name).split()[0].replace(",", ""))


@pytest.mark.parametrize("kind", ["preset", "file", "arch", "timm"])
def test_what_is_printed_is_what_the_json_says(
    kind: str, models: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines, found = printed(capsys, models[kind]), profiled(capsys, models[kind])
    assert number(lines, "latency") == pytest.approx(found["latency_ms"], abs=1e-4)
    assert number(lines, "peak RAM") == found["peak_ram_bytes"]
    assert number(lines, "weights") == found["flash_bytes"]
    assert number(lines, "MACs") == found["macs"]
    table = lines[1 : 1 + len(found["layers"])]
    for index, (line, layer) in enumerate(zip(table, found["layers"], strict=True)):
        assert int(line.split()[0]) == index
        assert float(line.split()[-1]) == pytest.approx(100 * layer["share"], abs=0.051)
    assert [i for i, line in enumerate(table) if "*" in line] == [found["peak_index"]]
    assert found["precision"] == ("int8" if kind == "file" else "fp32")
    assert (found["params"] is None) == (kind == "file")


@pytest.mark.parametrize("kind", ["preset", "file", "arch", "timm"])
def test_layers_add_up_to_the_totals(kind: str, models: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    found = profiled(capsys, models[kind])
    layers = found["layers"]
    assert sum(layer["macs"] for layer in layers) == found["macs"] > 0
    assert sum(layer["weight_bytes"] for layer in layers) == found["flash_bytes"] > 0
    microseconds = sum(layer["microseconds"] for layer in layers) + found["call"]["microseconds"]
    assert microseconds == pytest.approx(1000 * found["latency_ms"])
    assert layers[found["peak_index"]]["live_bytes"] == found["peak_ram_bytes"]
    assert layers[found["peak_index"]]["name"] == found["peak_layer"]


def test_what_the_runtime_takes_is_said_beside_what_the_network_takes(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["profile", "resnet8", "--device", "stm32l4r5", "--precision", "int8"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(layer["weight_bytes"] for layer in found["layers"]) + 76_000 == found["flash_bytes"]
    assert max(layer["live_bytes"] for layer in found["layers"]) + 16_800 == found["peak_ram_bytes"]
    assert main(arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{found['flash_bytes']:,} bytes including quantization scales and 76,000 for the runtime" in printed
    assert (
        f"{found['peak_ram_bytes']:,} bytes, computed from activation lifetimes, including 16,800 for the runtime"
        in printed
    )


def test_the_macs_of_resnet18_are_the_published_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert round(profiled(capsys, "resnet18")["macs"] / 1e9, 2) == 1.81  # a plain name that only timm knows


def test_the_input_shape_can_be_chosen(models: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("preset", "arch", "timm"):
        found = profiled(capsys, models[kind], "--input-shape", "3x64x64")
        assert found["input_shape"] == [3, 64, 64]
        assert found["layers"][0]["input_shape"] == [1, 3, 64, 64]
    assert profiled(capsys, "resnet8", "--input-shape", "1x28x28")["input_shape"] == [1, 28, 28]


def test_an_open_side_of_a_file_is_filled_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load_from_string(write_onnx(preset("resnet8").workload()))
    for axis, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "open.ONNX")
    assert main(["profile", str(tmp_path / "open.ONNX")]) == 2
    assert "--input-shape 3x224x224" in capsys.readouterr().err
    assert profiled(capsys, str(tmp_path / "open.ONNX"), "--input-shape", "3x64x64")["macs"] == 4 * 12_501_632 - 3 * 640


def test_measured_stands_beside_estimated(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "resnet8", "--precision", "int8", "--measure")
    at = next(i for i, line in enumerate(lines) if line.startswith("latency"))
    assert lines[at].endswith(", measured")
    assert ", estimated" in lines[at + 1]
    found = profiled(capsys, "resnet8", "--precision", "int8", "--measure")
    assert found["latency_source"] == found["sources"]["latency_ms"] == "measured"
    assert found["latency_raw_ms"] > 0
    assert found["estimated_ms"] != found["latency_ms"]
    shown = sum(layer["microseconds"] for layer in found["layers"]) + found["call"]["microseconds"]
    assert shown == pytest.approx(1000 * found["estimated_ms"])


def test_no_line_is_wider_than_a_terminal_and_no_layer_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "timm:densenet121", "--precision", "int8")
    rows = [line for line in lines if re.match(r"\d+ ", line)]
    assert len(rows) > 400
    assert max(map(len, lines)) <= 80
    assert "the cost of a similar kernel is used" in " ".join(" ".join(lines).split())
    assert any(line.startswith("warning ") for line in lines)
    assert not any("…" in line for line in printed(capsys, "mobilenetv3_small_100"))  # columns move together first


@pytest.mark.parametrize(
    "arguments",
    [
        ("resnet8", "--check"),
        ("resnet8", "--device", "stm32l4r5", "--precision", "int8"),
        ("resnet8", "--device", "stm32f746", "--precision", "int8"),
        ("mobilenetv3_large_100", "--device", "raspberry-pi-4"),
    ],
)
def test_what_is_printed_fits_80_columns(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert max(map(len, printed(capsys, *arguments))) <= 80


def test_the_page_holds_every_layer_and_needs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "page.html"
    found = profiled(capsys, "mobilenetv3_small_100", "--precision", "int8", "--html", str(path))
    text = path.read_text()
    page = Page(text)
    assert len(found["layers"]) > 100
    for layer in found["layers"]:
        assert layer["name"] in page.cells
        assert f"{layer['live_bytes']:,}" in page.cells
    assert [each for each in page.addresses if not each.startswith("#")] == ["data:,"]
    assert not re.search(r"https?://|@import|url\(", text)
    assert text.count('class="peak"') == 1
    assert f"peak {found['peak_ram_bytes']:,} bytes at {found['peak_layer']}" in text
    bars = re.findall(r'class="(?:live|other|peak)"', text)
    assert len(bars) == 2 * len(found["layers"])
    assert sorted(os.listdir(path.parent)) == ["page.html"]  # noqa: PTH208


def hostile_file(path: Path) -> None:
    """A convolution and an operation that nobody knows, with names that mean mischief."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, (4, 3, 3, 3), [0.0] * 108)
    nodes = [
        helper.make_node("Conv", ["x", "w"], [HOSTILE], pads=[1, 1, 1, 1]),
        helper.make_node("Evil\x1b[2J<img src=x>", [HOSTILE], ["y"], domain="custom"),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", (1, 3, 8, 8)), ("y", (1, 4, 8, 8)))
    )
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("custom", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def test_hostile_names_steer_neither_terminal_nor_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile_file(tmp_path / "evil.onnx")
    lines = printed(capsys, str(tmp_path / "evil.onnx"), "--html", str(tmp_path / "page.html"))
    found = profiled(capsys, str(tmp_path / "evil.onnx"))
    assert HOSTILE in [layer["name"] for layer in found["layers"]]
    assert found["unknown_ops"] == {"Evil\x1b[2J<img src=x>": 1}
    assert all(line.isprintable() for line in lines)
    assert sum(1 for line in lines if re.match(r"\d+ ", line)) == len(found["layers"])
    assert any("unknown operations" in line and "Evil�[2J<img src=x> (1)" in line for line in lines)
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert HOSTILE.replace("\x1b", "�").replace("\r\n", "��") in page.cells
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnett8"], "unknown model 'resnett8'; did you mean 'resnet8'?"),
        (["timm:resnet1818"], "timm has no model 'resnet1818'; did you mean"),
        (["convnext_tin"], "did you mean 'convnext_tiny'?"),
        (["missing.onnx"], "file not found: missing.onnx"),
        (["missing.json"], "file not found: missing.json"),
        (["text.json"], "model text.json: Arch: not JSON"),
        (["other.json"], "model other.json: Arch: schema must be 1, got None"),
        (["text.onnx"], "text.onnx"),
        (["resnet8", "--device", "hosst"], "unknown device 'hosst'; did you mean 'host'?"),
        (["resnet8", "--precision", "int4"], "precision must be one of fp32, int8, got 'int4'"),
        (
            ["model.onnx", "--precision", "int8"],
            "--precision does not apply to files, whose precision is fixed, got 'int8'",
        ),
        (
            ["resnet8", "--input-shape", "3,32,32"],
            "--input-shape must be positive integers separated by x, e.g. 3x224x224, got",
        ),
        (["resnet8", "--input-shape", "0x32x32"], "--input-shape must be positive integers"),
        (["resnet8", "--input-shape", "32x32"], "--input-shape must be three sizes, e.g. 3x224x224, got 32x32"),
        (["model.onnx", "--input-shape", "3x64x64"], "but input_shape is 3x64x64"),
        (["timm:resnet18", "--measure", "--precision", "int8"], "fp32 only, got 'int8'"),
        (["resnet8", "--html", "."], "--html must be a file, got the folder '.'"),
        (["resnet8", "--html", "text.json/page.html"], "--html: cannot write to"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.json").write_text("words")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "text.onnx").write_text("words")
    (tmp_path / "model.onnx").write_bytes(write_onnx(preset("resnet8").workload()))
    assert main(["profile", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nas: error: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_file_is_profiled_without_torch(models: dict[str, str]) -> None:
    code = (
        f"import sys; from nas.commands.main import main; assert main(['profile', {models['file']!r}]) == 0; "
        f"assert main(['profile', {models['arch']!r}]) == 0; sys.exit(bool({{'torch', 'timm'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False).returncode == 0


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "nas.commands.main", "profile", "resnet8"]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, env=environment, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("kind", ["preset", "arch", "timm"])
def test_check_shows_the_counts_of_fvcore_beside_ours(
    kind: str, models: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    side = [] if kind == "arch" else ["--input-shape", "3x64x64"]
    facts = profiled(capsys, models[kind], *side, "--check")
    assert facts["fvcore"] == {"macs": facts["macs"], "params": facts["params"]}


def test_check_says_where_the_counts_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = fvcore_counts.FvcoreCounts(macs=6_250_816, params=1)
    monkeypatch.setattr(fvcore_counts, "fvcore_counts", lambda model, shape: found)
    lines = printed(capsys, "resnet8", "--check")
    assert "fvcore       6,250,816 MACs: fitnas counts 100.00% more" in lines


def test_check_counts_attention(capsys: pytest.CaptureFixture[str]) -> None:
    facts = profiled(capsys, "timm:levit_128s", "--check")
    assert facts["fvcore"]["macs"] == facts["macs"]


def test_check_refuses_a_file(models: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", models["file"], "--check"]) == 2
    assert "--check requires a PyTorch model" in capsys.readouterr().err
