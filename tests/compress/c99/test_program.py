"""The written folder: it compiles anywhere, computes the same everywhere, and holds nothing of a model's names but text."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import onnx
import pytest

from compress.c99 import Exported, verify, write_c99
from compress.c99.network_reader import read_network
from compress.c99.target_machines import MACHINES, sizes
from compress.data.preprocessing import METADATA_KEY, Preprocessing
from search_spaces import preset, sample
from tests.compress.c99.files import graph_file, images, network_file
from tests.compress.c99.more_graphs import MORE_GRAPHS
from tests.compress.c99.test_graphs import GRAPHS
from tests.optional_parts import require
from tests.parameters import quick, slow

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]
HOSTILE = ['"; system("touch gone"); //', "*/ int evil; /*", "??/\n#error", "a\\", "Grüße %s", "x" * 300]


def compile_and_run(folder: Path, *flags: str) -> str:
    command = ["cc", *STRICT, *flags, "-o", "tested", "main.c", "model.c", "kernels.c"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[:2000]
    done = subprocess.run([str(folder / "tested")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("program")
    arch = sample("mobilenet", seed=1, input_shape=(3, 24, 24), num_classes=6)
    return write_c99(network_file(folder / "model.onnx", arch), folder / "c", test_images=images((3, 24, 24), 5))


@pytest.mark.parametrize(
    "flags", ["-O0", slow("-Os"), slow("-O3 -march=native"), "-O3 -march=native -ffp-contract=fast"]
)
def test_every_optimization_computes_the_same(program: Exported, flags: str) -> None:
    assert "0 of 5 inputs differ" in compile_and_run(program.folder, *flags.split())


@pytest.mark.parametrize("make", quick([*GRAPHS, *MORE_GRAPHS], [*GRAPHS[1:5], MORE_GRAPHS[1]]))
def test_no_access_outside_an_array_and_nothing_undefined(make: object, tmp_path: Path) -> None:
    assert callable(make)
    nodes, weights, shape = make()
    file = graph_file(tmp_path / "model.onnx", nodes, weights, shape)
    write_c99(file, tmp_path / "c", test_images=images(shape, 2))
    compile_and_run(tmp_path / "c", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover")


def test_make_test_says_that_nothing_differs_and_fails_where_something_does(program: Exported) -> None:
    folder = program.folder
    done = subprocess.run(["make", "-B", "test"], cwd=folder, capture_output=True, text=True, check=True)
    assert "0 of 5 inputs differ" in done.stdout
    text = (folder / "test_vectors.h").read_text()
    changed = re.sub(r"(test_outputs.*\n\{\n\s+)(-?\d+)", lambda m: m[1] + str((int(m[2]) + 129) % 256 - 128), text)
    try:
        (folder / "test_vectors.h").write_text(changed)
        failed = subprocess.run(["make", "-B", "test"], cwd=folder, capture_output=True, text=True, check=False)
    finally:
        (folder / "test_vectors.h").write_text(text)
    assert failed.returncode != 0
    assert "1 of 5 inputs differ" in failed.stdout


def test_nothing_is_needed_but_memory_functions(program: Exported) -> None:
    command = ["cc", *STRICT, "-Os", "-ffreestanding", "-c", "model.c", "kernels.c"]
    subprocess.run(command, cwd=program.folder, check=True)
    listed = subprocess.run(
        ["nm", "-u", "model.o", "kernels.o"], cwd=program.folder, capture_output=True, text=True, check=True
    )
    outside = {line.split()[-1] for line in listed.stdout.splitlines() if " U " in line}
    outside = {name for name in outside if not name.startswith(("kernel_", "_GLOBAL_", "__stack_chk"))}
    assert outside <= {"memcpy", "memset"}
    includes = "".join((program.folder / name).read_text() for name in ("model.c", "model.h", "kernels.c", "kernels.h"))
    assert set(re.findall(r"#include <(.*)>", includes)) == {"stdint.h", "string.h"}


def test_only_the_kernels_that_are_used_are_there(tmp_path: Path) -> None:
    file = network_file(tmp_path / "model.onnx", preset("resnet8", num_classes=4))
    write_c99(file, tmp_path / "c")
    text = (tmp_path / "c" / "kernels.c").read_text()
    assert set(re.findall(r"^void kernel_(\w+)", text, re.M)) == {"conv", "add", "average_pool"}


def test_names_of_a_model_are_text_and_nothing_else(tmp_path: Path) -> None:
    record = Preprocessing(
        channels=3, sizes=((32, 32),), mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.25), class_names=tuple(HOSTILE)
    )
    arch = preset("resnet8", num_classes=len(HOSTILE))
    file = network_file(tmp_path / "model.onnx", arch, metadata={METADATA_KEY: record.to_json()})
    model = onnx.load(file)
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    names -= {model.graph.input[0].name, model.graph.output[0].name}
    renamed = {name: f"{HOSTILE[i % 5]}{i}" for i, name in enumerate(sorted(names))}
    for node in model.graph.node:
        node.name = HOSTILE[0]
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for tensor in model.graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    onnx.save(model, file)
    folder = tmp_path / "c"
    write_c99(file, folder)
    compile_and_run(folder)
    text = "".join(path.read_text() for path in folder.iterdir() if path.suffix in (".c", ".h", ".md"))
    assert not re.search(r"system\(|\?\?/|#error|int evil;", text)
    (folder / "main.c").write_text(
        '#include <stdio.h>\n#include "model.h"\nint main(void) {\n'
        "    static const char *const names[MODEL_CLASSES] = MODEL_CLASS_NAMES;\n"
        "    static const float std[MODEL_INPUT_CHANNELS] = MODEL_STD;\n"
        '    for (int i = 0; i < MODEL_CLASSES; i++) {\n        printf("%s%c", names[i], 1);\n    }\n'
        "    return std[2] < 0.3f ? 0 : 1;\n}\n"
    )
    assert compile_and_run(folder).split("\1")[:-1] == HOSTILE


def test_another_number_in_the_program_is_found(tmp_path: Path) -> None:
    file = network_file(tmp_path / "model.onnx", preset("resnet8", num_classes=4))
    folder = tmp_path / "c"
    write_c99(file, folder)
    path = folder / "model.c"
    bias = r"(layer_0_0_bias\[16\] = \{\s+)(-?\d+)"
    changed = re.sub(bias, lambda m: m[1] + str(int(m[2]) + 100_000), path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    result = verify(folder, file, images((3, 32, 32), 2), machines=["host"])
    assert not result.verified
    assert "steps off" in result.problems[0]
    assert "**unverified**" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("name", "most_code"), [("resnet8", 12_000), slow(("mobilenetv2_035", 24_000))])
def test_on_microcontrollers_it_computes_the_same_in_few_bytes(name: str, most_code: int, tmp_path: Path) -> None:
    require(not MACHINES["cortex-m7"].missing(), MACHINES["cortex-m7"].missing())
    arch = preset(name, input_shape=(3, 32, 32), num_classes=10)
    file = network_file(tmp_path / "model.onnx", arch)
    write_c99(file, tmp_path / "c")
    result = verify(
        tmp_path / "c", file, images((3, 32, 32), 2), machines=["host", "cortex-m4", "cortex-m7"], layer_images=1
    )
    network = read_network(file)
    assert result.problems == ()
    readme = (tmp_path / "c" / "README.md").read_text()
    assert "**verified**" in readme
    rows = [line.split(" | ") for line in readme.splitlines() if line.startswith("| ") and line.count(" | ") == 2]
    told = [[int(cell.strip(" |").replace(",", "")) for cell in row[1:]] for row in rows if row[1][0].isdigit()]
    assert told == [[m.instructions[i] for m in result.machines[1:]] for i in range(len(network.layers))]
    for m in result.machines[1:]:
        assert m.exact == m.values
        assert m.sizes.code <= most_code
        assert m.sizes.constants <= 1.1 * network.weights + 8 * sum(len(step.weight) for step in network.convolutions())
        assert 0 < m.stack_bytes < 8192
        assert len(m.instructions) == len(network.layers)
        assert m.instructions_per_mac == sum(m.instructions) / network.macs
        assert f"{m.instructions_per_mac:.2f} instructions per MAC" in readme
        assert min(m.instructions) > 0
    again = verify(tmp_path / "c", file, images((3, 32, 32), 2), machines=["cortex-m7"], layer_images=1)
    assert again.machines[0].instructions == result.machines[2].instructions


def test_the_arena_is_the_planned_one_to_the_byte(program: Exported) -> None:
    assert sizes(MACHINES["host"], program.folder, program.folder).zeros == program.arena_bytes
    assert all(path.exists() for path in program.files)
