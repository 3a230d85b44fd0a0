"""The devices that ship: which facts, which published latencies, and which relatives lend what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hw_profiles.devices.facts import ASSUMED, DROPPED, Fact


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """The published latencies of a precision: parts of the names of tables. ``own`` are of the device itself;
    ``alike`` are of the same core and runtime, and say how kinds of kernels compare.
    """

    own: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """A device before it is fitted. Without tables of its own it takes the costs of ``borrows``, times ``slower`` and
    the ratio of the clocks.
    """

    name: str
    description: str
    facts_of: str  # the name in devices.csv
    runtime: str
    threads: int
    tables: Mapping[str, Tables] = field(default_factory=dict)
    borrows: str = ""
    slower: float = 1.0
    float_factor: float = 0.0  # what a float network takes more than an int8 one, assumed; 0: none is offered
    measured_with: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)  # beside those of the table, or instead of them


_DROPS_DEAD_CHANNELS = Fact(
    value=DROPPED, note="since X-CUBE-AI 8.1: half of the multiplications of the network for visual wake words",
    source="mlcommons/tiny_results_v1.1 closed/STMicroelectronics @c32ef94d19: cycles per MAC beside those of v1.0",
)  # fmt: skip


def _assumed(value: float | int | str, note: str = "") -> Fact:
    return Fact(value=value, source=ASSUMED, note=note)


_TFLITE = "TFLite 2.4.1 (ruy), all cores"
_NETSPRESSO = "TensorFlow Lite, threads not stated (NetsPresso's hosted device)"
_NCNN = "ncnn's benchmark, fp16 where the core has it"
_CUBE = "X-CUBE-AI 8.1 to 10.2"
_BOTH = ("fp32", "int8")
_NO_OWN = "no published latency of its own"

_NCNN_A53 = ("Cortex-A53|ncnn||4", "OrangePi Zero 2", "NanoPi R2S, Rockchip RK3328|ncnn||4", "RDK X3", "QRB2210|ncnn||4",
             "EAIDK 310, Rockchip RK3228H|ncnn||4", "Snapdragon 410|ncnn||4")  # fmt: skip
_NCNN_A76 = ("RK3588|ncnn||4", "RK3588s|ncnn||4", "Plus, Rockchip RK3588|ncnn||4")
_NCNN_PHONES = ("Snapdragon 855+|ncnn||4", "Snapdragon 765G|ncnn||4", "Snapdragon 8 Gen 2|ncnn||4", "Dimensity 9300|ncnn||4",
                "Snapdragon 835|ncnn||4", "Snapdragon 810|ncnn||4", "RK3588|ncnn||4")  # fmt: skip
_NETS_FLOAT = ("Raspberry Pi 4B|TFLite||", "Raspberry Pi 3B PLUS|TFLite||", "Raspberry Pi Zero 2 W|TFLite||")
_KRAI = ("Raspberry Pi 4|TFLite|v2.4.1", "Jetson AGX Xavier|TFLite|v2.4.1")
_M4_OLD = ("STM32L4R5ZI|X-CUBE-AI v7", "STM32L4R5ZI|X-CUBE-AI v8.0")
_M4 = ("STM32L4R5ZI|X-CUBE-AI v8.1", "STM32L4R5ZI|X-CUBE-AI v9", "STM32L4R5ZI|X-CUBE-AI v10")
_M7 = ("STM32H747|STM32Cube.AI", "STM32H7A3ZI|X-CUBE-AI")
_M33_OLD = ("STM32U575ZI|X-CUBE-AI v7",)
_M33 = ("STM32U575ZI|X-CUBE-AI v8", "STM32U575ZI|X-CUBE-AI v9", "STM32U575ZI|X-CUBE-AI v10")
_FLOAT_ON_FPU = 3.0
_F412 = "zephyrproject-rtos/zephyr boards/st/nucleo_f412zg/doc/index.rst @112ef11125"

_CUBE_SOURCE = "STMicroelectronics/stm32ai-modelzoo, tables of the STM32H747 with STM32Cube.AI 8.1 and 10.0"
_CUBE_RUNTIME = {
    "runtime_ram_bytes": Fact(value=16800, low=4600, high=33700, source=_CUBE_SOURCE, note="beside activations"),
    "runtime_flash_bytes": Fact(value=76000, low=52600, high=195700, source=_CUBE_SOURCE, note="code, beside weights"),
}
_MICRO_RUNTIME = {
    "runtime_ram_bytes": _assumed(8000, "TensorFlow Lite Micro, beside activations"),
    "runtime_flash_bytes": _assumed(70000, "TensorFlow Lite Micro with the kernels that it needs, beside weights"),
}

SPECS: tuple[Spec, ...] = (
    Spec(
        name="raspberry-pi-4", description="Raspberry Pi 4, 4x Cortex-A72, TensorFlow Lite", facts_of="Raspberry Pi 4",
        runtime="tflite", threads=4, measured_with=_TFLITE,
        tables={p: Tables(own=("Raspberry Pi 4|TFLite|v2.4.1",), alike=(*_NETS_FLOAT, *_KRAI)) for p in _BOTH},
        facts={"active_power_mw": Fact(
            value=6500.0, low=5600.0, high=7500.0, note="wall, whole board, all cores busy",
            source="mlcommons/inference_results_v1.0 open/Krai/results/rpi4coral-*/**/spl.txt @f7759baf2f",
        )},
    ),
    Spec(
        name="raspberry-pi-4-ncnn", description="Raspberry Pi 4, 4x Cortex-A72, ncnn", facts_of="Raspberry Pi 4",
        runtime="ncnn", threads=4, measured_with=_NCNN,
        tables={p: Tables(own=("Cortex-A72|ncnn||4",), alike=("RK3399|ncnn||", *_NCNN_A53)) for p in _BOTH},
        facts={"clock_mhz": Fact(value=1800, source="Tencent/ncnn benchmark/README.md @a4d2ea1d44"), "active_power_mw": Fact(
            value=6500.0, low=5600.0, high=7500.0, note="wall, whole board, all cores busy",
            source="mlcommons/inference_results_v1.0 open/Krai/results/rpi4coral-*/**/spl.txt @f7759baf2f",
        )},
    ),
    Spec(
        name="raspberry-pi-3", description="Raspberry Pi 3 B+, 4x Cortex-A53, TensorFlow Lite",
        facts_of="Raspberry Pi 3 Model B+", runtime="tflite", threads=4, measured_with=_NETSPRESSO,
        tables={p: Tables(own=("Raspberry Pi 3B PLUS|TFLite",), alike=(*_NETS_FLOAT, *_KRAI)) for p in _BOTH},
        facts={"ram_bytes": _assumed(1073741824), "active_power_mw": _assumed(5000.0, "wall, whole board")},
    ),
    Spec(
        name="raspberry-pi-3-ncnn", description="Raspberry Pi 3 B+, 4x Cortex-A53, ncnn", facts_of="Raspberry Pi 3 Model B+",
        runtime="ncnn", threads=4, measured_with=_NCNN,
        tables={p: Tables(own=("BCM2837B0, Cortex-A53|ncnn||4",), alike=_NCNN_A53) for p in _BOTH},
        facts={"ram_bytes": _assumed(1073741824), "active_power_mw": _assumed(5000.0, "wall, whole board")},
    ),
    Spec(
        name="raspberry-pi-zero-2-w", description="Raspberry Pi Zero 2 W, 4x Cortex-A53, TensorFlow Lite",
        facts_of="Raspberry Pi Zero 2 W", runtime="tflite", threads=4, measured_with=_NETSPRESSO,
        tables={p: Tables(own=("Raspberry Pi Zero 2 W|TFLite",), alike=(*_NETS_FLOAT, *_KRAI)) for p in _BOTH},
        facts={"ram_bytes": _assumed(536870912), "active_power_mw": _assumed(2500.0, "wall, whole board")},
    ),
    Spec(
        name="raspberry-pi-5", description="Raspberry Pi 5, 4x Cortex-A76, ncnn", facts_of="Raspberry Pi 5",
        runtime="ncnn", threads=4, measured_with=f"{_NO_OWN}; RK3588 (Cortex-A76 too, same clock): {_NCNN}",
        tables={p: Tables(alike=_NCNN_A76) for p in _BOTH},
        facts={"ram_bytes": Fact(
            value=4294967296, low=4294967296, high=8589934592, note="the smaller of the boards at launch",
            source="zephyrproject-rtos/zephyr boards/raspberrypi/rpi_5/doc/index.rst",
        ), "active_power_mw": _assumed(8000.0, "wall, whole board")},
    ),
    Spec(
        name="phone-mid-range", description="Snapdragon 765G (CPU, 4 threads), ncnn", facts_of="Snapdragon 765G phone",
        runtime="ncnn", threads=4, measured_with=_NCNN,
        tables={p: Tables(own=("Snapdragon 765G|ncnn||4",), alike=_NCNN_PHONES) for p in _BOTH},
        facts={
            "core": Fact(value="Kryo 475 (2.2 GHz x 2, 1.8 GHz x 6)", source="Tencent/ncnn benchmark/README.md @a4d2ea1d44"),
            "clock_mhz": Fact(value=2200, source="Tencent/ncnn benchmark/README.md @a4d2ea1d44"),
            "ram_bytes": _assumed(6442450944), "active_power_mw": _assumed(3000.0, "processor alone"),
        },
    ),
    Spec(
        name="phone-recent", description="Snapdragon 8 Gen 2 (CPU, 4 threads), ncnn", facts_of="Snapdragon 8 Gen 2 phone",
        runtime="ncnn", threads=4, measured_with=_NCNN,
        tables={p: Tables(own=("Snapdragon 8 Gen 2|ncnn||4",), alike=_NCNN_PHONES) for p in _BOTH},
        facts={
            "clock_mhz": Fact(value=3200, source="Tencent/ncnn benchmark/README.md @a4d2ea1d44"),
            "core": Fact(value="Kryo (3.2 GHz, 2.8 GHz x 4, 2.0 GHz x 3)", source="Tencent/ncnn benchmark/README.md @a4d2ea1d44"),
            "ram_bytes": _assumed(8589934592), "active_power_mw": _assumed(5000.0, "processor alone"),
        },
    ),
    Spec(
        name="jetson-nano", description="Jetson Nano (CPU: 4x Cortex-A57), ncnn", facts_of="Jetson Nano",
        runtime="ncnn", threads=4, measured_with=_NCNN,
        tables={p: Tables(own=("NVIDIA Jetson Nano|ncnn||4",), alike=("Jetson TX2 NX|ncnn||6", "Snapdragon 810|ncnn||4")) for p in _BOTH},
        facts={"clock_mhz": _assumed(1430), "active_power_mw": _assumed(7000.0, "whole board; its limit is 10 W")},
    ),
    Spec(
        name="jetson-orin-nano", description="Jetson Orin Nano (CPU: 6x Cortex-A78AE), ncnn", facts_of="Jetson Orin Nano 8GB",
        runtime="ncnn", threads=6, measured_with=_NCNN,
        tables={p: Tables(own=("NVIDIA Jetson Orin Nano|ncnn||6",), alike=("Jetson AGX Orin|ncnn||4", "Jetson AGX Orin|ncnn||8")) for p in _BOTH},
        facts={"active_power_mw": _assumed(10000.0, "whole board; its limits are 7 to 15 W")},
    ),
    Spec(
        name="stm32l4r5", description="STM32L4R5, Cortex-M4 at 120 MHz, X-CUBE-AI", facts_of="STM32L4R5ZI", runtime="c99",
        threads=1, measured_with=_CUBE, float_factor=_FLOAT_ON_FPU, tables={"int8": Tables(own=_M4, alike=(*_M4_OLD, *_M7, *_M33))},
        facts={**_CUBE_RUNTIME, "dead_channels": _DROPS_DEAD_CHANNELS, "active_power_mw": Fact(
            value=45.0, low=42.7, high=48.7, note="chip at 1.8 V",
            source="mlcommons/tiny_results_v0.7 closed/STMicroelectronics/results/NUCLEO_L4R5ZI/*/energy @64623f41b6",
        )},
    ),
    Spec(
        name="stm32f412", description="STM32F412, Cortex-M4 at 100 MHz, as X-CUBE-AI on another M4",
        facts_of="STM32F412ZG", runtime="c99", threads=1, borrows="stm32l4r5", float_factor=_FLOAT_ON_FPU,
        facts={"core": Fact(value="Cortex-M4F", source=_F412), "clock_mhz": Fact(value=100, source=_F412),
               "active_power_mw": _assumed(80.0, "chip"), "cache": _assumed("none (ART flash accelerator)")},
    ),
    Spec(
        name="stm32h747", description="STM32H747, Cortex-M7 at 400 MHz, X-CUBE-AI", facts_of="STM32H747XI", runtime="c99",
        threads=1, measured_with="STM32Cube.AI 8.1 and 10.0", float_factor=_FLOAT_ON_FPU,
        tables={"int8": Tables(own=("STM32H747|STM32Cube.AI|8", "STM32H747|STM32Cube.AI|10"), alike=(*_M7, *_M4))},
        facts={**_CUBE_RUNTIME, "dead_channels": _DROPS_DEAD_CHANNELS, "ram_bytes": _assumed(524288, "the largest block, AXI SRAM"), "active_power_mw": _assumed(300.0, "chip")},
    ),
    Spec(
        name="stm32h743", description="STM32H743, Cortex-M7 at 480 MHz, as X-CUBE-AI on the STM32H747",
        facts_of="STM32H743ZI", runtime="c99", threads=1, borrows="stm32h747", float_factor=_FLOAT_ON_FPU,
        facts={
            "clock_mhz": _assumed(480), "active_power_mw": _assumed(300.0, "chip"),
            "ram_bytes": Fact(value=524288, note="the largest block, AXI SRAM; 1 MiB in all",
                              source="zephyrproject-rtos/zephyr dts/arm/st/h7/stm32h743.dtsi @0761962b67"),
        },
    ),
    Spec(
        name="stm32f746", description="STM32F746, Cortex-M7 at 216 MHz, as X-CUBE-AI on the STM32H747",
        facts_of="STM32F746NG", runtime="c99", threads=1, borrows="stm32h747", float_factor=_FLOAT_ON_FPU,
        facts={"active_power_mw": _assumed(200.0, "chip")},
    ),
    Spec(
        name="stm32u575", description="STM32U575, Cortex-M33 at 160 MHz, X-CUBE-AI", facts_of="STM32U575ZI", runtime="c99",
        threads=1, measured_with=_CUBE, float_factor=_FLOAT_ON_FPU, tables={"int8": Tables(own=_M33, alike=(*_M33_OLD, *_M7, *_M4))},
        facts={**_CUBE_RUNTIME, "dead_channels": _DROPS_DEAD_CHANNELS, "active_power_mw": Fact(
            value=25.0, low=22.7, high=27.2, note="chip at 1.8 V",
            source="mlcommons/tiny_results_v1.3 closed/STMicroelectronics/results/NUCLEO_U575ZI_Q/*/energy @cd605ea098",
        )},
    ),
    Spec(
        name="stm32n6", description="STM32N6 (CPU: Cortex-M55 at 800 MHz), as a Cortex-M7 by clock",
        facts_of="STM32N657X0", runtime="c99", threads=1, borrows="stm32h747", slower=0.5, float_factor=_FLOAT_ON_FPU,
        facts={"clock_mhz": _assumed(800.0), "active_power_mw": _assumed(200.0, "chip"), "flash_bytes": Fact(
            value=0, source="zephyrproject-rtos/zephyr boards/st/stm32n6570_dk/doc/index.rst @06ec3c70c6",
            note="none on the chip: programs are in external flash",
        )},
    ),
    Spec(
        name="ra8d1", description="RA8D1, Cortex-M85 at 480 MHz, as a Cortex-M7 by clock", facts_of="RA8D1", runtime="c99",
        threads=1, borrows="stm32h747", slower=0.5, float_factor=_FLOAT_ON_FPU,
        facts={"active_power_mw": _assumed(200.0, "chip")},
    ),
    Spec(
        name="nrf52840", description="nRF52840, Cortex-M4 at 64 MHz, as X-CUBE-AI on another M4", facts_of="nRF52840",
        runtime="c99", threads=1, borrows="stm32l4r5", float_factor=_FLOAT_ON_FPU,
        facts={"active_power_mw": _assumed(20.0, "chip at 3 V")},
    ),
    Spec(
        name="nrf5340", description="nRF5340, Cortex-M33 at 128 MHz, TensorFlow Lite Micro", facts_of="nRF5340",
        runtime="tflite", threads=1, measured_with="TensorFlow Lite Micro (NATS-Bench-MCU)", float_factor=_FLOAT_ON_FPU,
        tables={"int8": Tables(own=("nRF5340|tflite-micro",))},
        facts={**_MICRO_RUNTIME, "active_power_mw": Fact(
            value=11.3, low=10.3, high=12.5, note="chip", source="ankilab/NATS-Bench-MCU README.md @195de5a4a0",
        )},
    ),
    Spec(
        name="rp2040", description="RP2040, Cortex-M0+ at 125 MHz, TensorFlow Lite Micro with CMSIS-NN", facts_of="RP2040",
        runtime="tflite", threads=1, measured_with="pico-tflmicro with CMSIS-NN, one core", float_factor=15.0,
        tables={"int8": Tables(own=("RP2040)|tflite-micro + CMSIS-NN", "RP2040|tflite-micro + CMSIS-NN"))},
        facts={**_MICRO_RUNTIME, "active_power_mw": _assumed(80.0, "chip"), "cache": _assumed("16 KiB XIP cache")},
    ),
    Spec(
        name="rp2350", description="RP2350, Cortex-M33 at 150 MHz, as X-CUBE-AI on another M33", facts_of="RP2350",
        runtime="c99", threads=1, borrows="stm32u575", float_factor=_FLOAT_ON_FPU,
        facts={"active_power_mw": _assumed(80.0, "chip")},
    ),
    Spec(
        name="esp32-s3", description="ESP32-S3, Xtensa LX7 at 240 MHz, TensorFlow Lite Micro with ESP-NN", facts_of="ESP32-S3",
        runtime="tflite", threads=1, measured_with="TensorFlow Lite Micro with ESP-NN, two networks", float_factor=4.0,
        tables={"int8": Tables(own=("ESP32-S3|tflite-micro + ESP-NN",), alike=("ESP32-S3|esp-nn", "ESP32-P4|esp-nn"))},
        facts={**_MICRO_RUNTIME, "flash_bytes": _assumed(8388608, "external, of the module"), "active_power_mw": _assumed(300.0, "module")},
    ),
    Spec(
        name="esp32-p4", description="ESP32-P4, RISC-V at 360 MHz, TensorFlow Lite Micro with ESP-NN", facts_of="ESP32-P4",
        runtime="tflite", threads=1, measured_with="TensorFlow Lite Micro with ESP-NN, two networks", float_factor=4.0,
        tables={"int8": Tables(own=("ESP32-P4|tflite-micro + ESP-NN",), alike=("ESP32-S3|esp-nn", "ESP32-P4|esp-nn"))},
        facts={**_MICRO_RUNTIME, "clock_mhz": Fact(value=360, note="of the published kernels; 400 is the maximum",
                                 source="espressif/esp-nn README.md"), "active_power_mw": _assumed(400.0, "module")},
    ),
)  # fmt: skip
