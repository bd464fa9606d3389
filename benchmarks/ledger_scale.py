"""What the ledger takes on many records: its index, and the commands that ask it for a sweep that is done.

    python benchmarks/ledger_scale.py [NUMBER]

Makes so many records, 20,000 if nothing is said, of 12 KB each in a folder that is taken away again.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from routerbench.ledger.ledger import read_ledger

POCKET = Path(__file__).parents[1] / "results" / "pocket" / "runs"
SIZE = 12_000  # bytes of the record of a model with many MoE layers
PROGRAM = [sys.executable, "-m", "routerbench"]


def make(results: Path, number: int) -> None:
    """Write records that differ by their seeds, in folders as a run leaves them."""
    templates = [json.loads(path.read_text()) for path in sorted(POCKET.glob("*/record.json"))]
    for seed in range(number):
        record = templates[seed % len(templates)]
        folder = results / "runs" / f"{record['run_id'].rpartition('-')[0]}-{seed:010x}"
        (folder / "checkpoint" / "step-000000100").mkdir(parents=True)
        (folder / "attempts").mkdir()
        for name in ("config.yaml", "metrics.jsonl", "attempts/0001.json", "checkpoint/step-000000100/shard"):
            (folder / name).write_bytes(b" " * 1000)
        record |= {"run_id": folder.name, "config": record["config"] | {"seed": seed}}
        (folder / "record.json").write_text(json.dumps(padded(record), indent=1))


def padded(record: dict[str, Any]) -> dict[str, Any]:
    """The record with as many metrics of layers as make up its size."""
    missing = SIZE - len(json.dumps(record, indent=1))
    further = {f"routing/blocks.{number}.mlp/share": number / 3 for number in range(max(missing, 0) // 60)}
    return {**record, "metrics": record["metrics"] | further}


def seconds_of_ledger(results: Path) -> float:
    """To read the ledger once."""
    started = perf_counter()
    read_ledger(results)
    return perf_counter() - started


def seconds_of_command(*words: str) -> float:
    """Of the program, from its start to its end."""
    started = perf_counter()
    subprocess.run([*PROGRAM, *words], stdout=subprocess.DEVNULL, check=False)
    return perf_counter() - started


def main(words: list[str]) -> None:
    """Make the records, and measure."""
    number = int(words[0]) if words else 20_000
    with tempfile.TemporaryDirectory() as temporary:
        results = Path(temporary)
        make(results, number)
        shutil.copytree(POCKET, results / "runs", dirs_exist_ok=True)
        print(f"{number} records, {os.cpu_count()} cores")
        print(f"ledger without its index: {seconds_of_ledger(results):.2f} s")
        size = (results / "index.json").stat().st_size / 1e6
        print(f"ledger with its index of {size:.1f} MB: {seconds_of_ledger(results):.2f} s")
        here = f"runtime.results={results}"
        for command in (
            ("status", "--results", str(results)),
            ("status", "+sweep=demo", here),
            ("plan", "+sweep=demo", here),
            ("plan", "+sweep=demo", "seed=0,1,2,3", here),
            ("train", "-m", "+sweep=demo", here),
        ):
            named = " ".join(command).replace(str(results), "DIR")
            print(f"routerbench {named}: {seconds_of_command(*command):.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
