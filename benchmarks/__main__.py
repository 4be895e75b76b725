"""The command line: `python -m benchmarks run | contractions | cold | bounds | list`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import cold, contractions, driver, machine, peers, report
from benchmarks.products import draw, parse
from benchmarks.table import table
from benchmarks.workloads import NAMED, WORKLOADS

COLD_PEERS = [p for p in peers.PEERS if not p.endswith(("_scan", "_loop"))]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    main = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="time peers on workloads, taking turns")
    names = list(WORKLOADS)
    run.add_argument("--workloads", nargs="+", choices=names, default=names, metavar="NAME")
    run.add_argument("--baseline", choices=peers.PEERS, default="diffc", metavar="PEER")
    products = commands.add_parser("contractions", help="time matrix products of random shapes")
    products.add_argument("--count", type=int, default=200, help="how many random shapes")
    products.add_argument(
        "--products", nargs="+", type=parse, metavar="MxKxNab", help="these, as 64x1000x100NT"
    )
    products.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    start = commands.add_parser("cold", help="fresh process to the first gradient")
    start.add_argument("--rounds", type=int, default=5)
    limits = commands.add_parser("bounds", help="diffc's FLOP/s and bytes/s against the machine's")
    limits.add_argument(
        "--workloads", nargs="+", choices=names, default=list(NAMED), metavar="NAME"
    )
    limits.add_argument("--threads", type=int, default=1)
    for command, rounds, chunk_ms in ((run, 30, 30.0), (products, 7, 3.0)):
        command.add_argument("--rounds", type=int, default=rounds)
        command.add_argument("--chunk-ms", type=float, default=chunk_ms, help="length of a chunk")
        command.add_argument("--markdown", type=Path, metavar="FILE", help="write a page there")
    chosen = ((run, peers.PEERS), (products, contractions.PEERS), (start, COLD_PEERS))
    for command, names in chosen:
        names = list(names)
        command.add_argument("--peers", nargs="+", choices=names, default=names, metavar="PEER")
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    commands.add_parser("list", help="the workloads and the peers")
    return main


def say(line: str) -> None:
    """Report progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def settings_of(arguments: argparse.Namespace) -> driver.Settings:
    """Return the settings that the command line asks for."""
    return driver.Settings(
        threads=arguments.threads,
        rounds=arguments.rounds,
        chunk_seconds=arguments.chunk_ms / 1e3,
        seed=arguments.seed,
    )


def write(path: Path | None, text: str) -> None:
    """Write a file, if one is asked for, and the folder it is in."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def as_text(record: Any) -> str:
    """Return JSON as it is written to files."""
    return json.dumps(record, indent=1) + "\n"


def run(arguments: argparse.Namespace) -> None:
    """Time the chosen peers on the chosen workloads."""
    settings = settings_of(arguments)
    groups = []
    for name in arguments.workloads:
        groups.append(driver.run_workload(name, arguments.peers, settings, say))
        write(arguments.json, as_text(report.as_json(groups, settings, arguments.baseline)))
        write(arguments.markdown, report.markdown(groups, settings))
    print(report.text(groups, arguments.baseline))


def time_contractions(arguments: argparse.Namespace) -> None:
    """Time matrix products of random shapes."""
    settings = settings_of(arguments)
    products = arguments.products or draw(arguments.count, arguments.seed)
    found, problems = contractions.measure(
        products, arguments.dtype, settings, say, peers=arguments.peers
    )
    record = contractions.as_json(found, problems, arguments.dtype, settings)
    write(arguments.json, as_text(record))
    text = contractions.text(found, problems)
    title = f"# {len(products)} matrix products, {arguments.dtype}"
    write(arguments.markdown, f"{title}\n\n```text\n{text}\n```\n")
    print(text)


def cold_start(arguments: argparse.Namespace) -> None:
    """Time fresh processes."""
    settings = driver.Settings(threads=arguments.threads, seed=arguments.seed)
    records = cold.measure(arguments.peers, arguments.rounds, settings, say)
    write(arguments.json, as_text(records))
    print(cold.text(records))


def show_bounds(arguments: argparse.Namespace) -> None:
    """Time diffc and the machine in this process, which is pinned before it imports them."""
    machine.pin(machine.choose_cores(arguments.threads))
    os.environ["DIFFC_NUM_THREADS"] = str(arguments.threads)
    from benchmarks import bounds, peaks

    found = peaks.measure(arguments.threads)
    print(bounds.text(bounds.measure(arguments.workloads), found))


def show_list() -> None:
    """Print the workloads and the peers."""
    rows = []
    for name, workload in WORKLOADS.items():
        kind = workload.optimizer["kind"] if workload.optimizer else "-"
        rows.append([name, workload.dtype, kind, workload.unit])
    print(table(["workload", "dtype", "optimizer", "unit of work"], rows, left=4))
    print()
    print(table(["peer", "what"], [[p, e.doc] for p, e in peers.PEERS.items()]))


def main(words: list[str] | None = None) -> None:
    """Do what the command line says."""
    arguments = parser().parse_args(words)
    if arguments.command == "list":
        show_list()
        return
    commands = {
        "run": run,
        "contractions": time_contractions,
        "cold": cold_start,
        "bounds": show_bounds,
    }
    commands[arguments.command](arguments)


if __name__ == "__main__":
    main()
