"""What each verb does, in a sentence or two, and the examples at the end of its help."""

from __future__ import annotations

import argparse
import textwrap

SENTENCES = {
    "doctor": "Check that fitnas can run on this machine: packages, one training step, ONNX Runtime, compilers and "
    "timing noise.",
    "init": "Write a TOML file with all settings of `nas run`, each with a description and its default value.",
    "run": "Search for, train and compress a model within the limits, evaluate it on the test set and write a report.",
    "search": "Search for the most accurate architecture within the limits, and print the Pareto front.",
    "worker": "Join a search started by another process or machine and train its candidates until the search is "
    "complete.",
    "report": "Regenerate report.html from the files of a finished run. Given several runs, write one page "
    "that compares them.",
    "list": "List the search spaces, the preset architectures and the devices.",
    "devices": "List the built-in devices; show, check, benchmark or calibrate one.",
    "devices show": "Show a device: the sources of its figures, the accuracy of its latency estimates, and the cost "
    "coefficients of each kind of kernel (operator).",
    "devices check": "Benchmark ten networks on this machine and compare the measured latencies with the estimates "
    "of a device file.",
    "devices measure": "Benchmark networks on this machine, or on a remote one over SSH, and write a device file "
    "for it.",
    "devices kit": "Write a benchmark kit: small networks and a script that times them on any device with Python and "
    "onnxruntime.",
    "devices calibrate": "Create a device file from a similar device and a few latencies measured on the new device.",
    "select": "Rank, by published ImageNet accuracy, the pretrained timm models that meet the limits.",
    "profile": "Show the MACs, weight size, memory and latency of a model on a device, layer by layer.",
    "export": "Export an int8 model as C99 source code with no heap allocation and no dependencies.",
    "compress": "Make a trained model smaller and faster on a device while keeping the accuracy drop within a limit.",
    "compare": "Evaluate two models on the same test images and report accuracy, agreement and the first "
    "diverging layer.",
}

EXAMPLES = {
    "run": (
        "nas run --data photos --device host --latency 2ms --time 1h --out runs/photos",
        "nas run --data digits --latency 0.15ms --trials 20 --set train_epochs=50 --out runs/digits",
    ),
    "init": (
        "nas init",
        "nas init photos.toml --data photos --latency 2ms --time 1h",
    ),
    "doctor": (
        "nas doctor",
        "nas doctor --json",
    ),
    "search": (
        "nas search --data photos --latency 2ms --trials 100 --out runs/search",
        "nas search --data photos --latency 2ms --trials 100 --storage search.journal --study photos --out runs/search",
    ),
    "compress": (
        "nas compress runs/photos --max-accuracy-drop 1 --target-size 50kB --out runs/small",
        "nas compress model.onnx --data photos --device raspberry-pi-4 --out runs/small",
    ),
    "worker": (
        "nas worker photos --storage search.journal --data photos",
        "nas worker photos --storage postgresql://nas@db.example.com/studies --data photos --workers 4",
    ),
    "report": (
        "nas report runs/photos",
        "nas report runs/first runs/second --out comparison.html",
    ),
    "list": (
        "nas list",
        "nas list --json",
    ),
    "devices": (
        "nas devices",
        "nas devices show host --json",
    ),
    "devices show": (
        "nas devices show host",
        "nas devices show my.toml",
    ),
    "devices check": (
        "nas devices check",
        "nas devices check my.toml --json",
    ),
    "devices measure": (
        "nas devices measure --out four_threads.toml --threads 4 --time 2min",
        "nas devices measure --ssh pi@raspberrypi.local --base raspberry-pi-4 --out my_pi.toml",
    ),
    "devices kit": (
        "nas devices kit --out kit",
        "nas devices kit --out board --board",
    ),
    "profile": (
        "nas profile resnet8 --precision int8",
        "nas profile model.onnx --html profile.html",
    ),
    "devices calibrate": (
        "nas devices calibrate --base raspberry-pi-4 --from latencies.csv --out my.toml",
        "nas devices calibrate --base host --from result.json --out laptop.toml",
    ),
    "select": (
        "nas select --device raspberry-pi-4 --latency 30ms --precision int8",
        "nas select --device host --latency 10ms --flash 20MB --top 3 --measure 3",
    ),
    "export": (
        "nas export model.int8.onnx --out program",
        "nas export runs/photos --out program --data photos --verify",
    ),
    "compare": (
        "nas compare model.onnx model.int8.onnx --data digits",
        "nas compare runs/first runs/second --measure",
    ),
}


def epilog(verb: str) -> str:
    """The last lines of the help of a verb.

    >>> print(epilog("list"))
    examples:
      nas list
      nas list --json
    """
    return "\n  ".join(["examples:", *EXAMPLES.get(verb, ())])


def describe(parser: argparse.ArgumentParser, verb: str) -> None:
    """Put the sentence before the options in the help of a verb, and its examples after them."""
    parser.description, parser.epilog = textwrap.fill(SENTENCES.get(verb, ""), 78), epilog(verb)
