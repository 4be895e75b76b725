"""The command line: `python -m benchmarks run | cold | list`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import cold, driver, peers, report
from benchmarks.table import table
from benchmarks.workloads import WORKLOADS

COLD_PEERS = [p for p in peers.PEERS if not p.endswith("_scan")]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    main = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="time peers on workloads, taking turns")
    names = list(WORKLOADS)
    run.add_argument("--workloads", nargs="+", choices=names, default=names, metavar="NAME")
    run.add_argument("--baseline", choices=peers.PEERS, default="diffc", metavar="PEER")
    run.add_argument("--chunk-ms", type=float, default=30.0, help="length of a chunk")
    run.add_argument("--rounds", type=int, default=30)
    start = commands.add_parser("cold", help="fresh process to the first gradient")
    start.add_argument("--rounds", type=int, default=5)
    for command, chosen in ((run, list(peers.PEERS)), (start, COLD_PEERS)):
        command.add_argument("--peers", nargs="+", choices=chosen, default=chosen, metavar="PEER")
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    commands.add_parser("list", help="the workloads and the peers")
    return main


def say(line: str) -> None:
    """Report progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def run(arguments: argparse.Namespace) -> None:
    """Time the chosen peers on the chosen workloads."""
    settings = driver.Settings(
        threads=arguments.threads,
        rounds=arguments.rounds,
        chunk_seconds=arguments.chunk_ms / 1e3,
        seed=arguments.seed,
    )
    groups = []
    for name in arguments.workloads:
        groups.append(driver.run_workload(name, arguments.peers, settings, say))
        if arguments.json:
            record = report.as_json(groups, settings, arguments.baseline)
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    print(report.text(groups, arguments.baseline))


def cold_start(arguments: argparse.Namespace) -> None:
    """Time fresh processes."""
    settings = driver.Settings(threads=arguments.threads, seed=arguments.seed)
    records = cold.measure(arguments.peers, arguments.rounds, settings, say)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    print(cold.text(records))


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
    else:
        {"run": run, "cold": cold_start}[arguments.command](arguments)


if __name__ == "__main__":
    main()
