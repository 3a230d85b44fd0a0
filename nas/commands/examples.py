"""The examples at the end of each verb's help."""

from __future__ import annotations

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
