"""The command: ``python -m benchmarks``, or ``tox -e bench`` with arguments after ``--``."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from collections.abc import Sequence

from benchmarks import measuring, page
from benchmarks.jobs import JOBS, Job, Scale, Systems
from benchmarks.peers import running as peers
from benchmarks.running import FailedError
from benchmarks.tables import Found, ratios, table


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [job.name for job in JOBS]
    parser.add_argument("--quick", action="store_true", help="under a minute, one small run, ratios only")
    parser.add_argument("--full", action="store_true", help="a million messages waiting too")
    parser.add_argument("--runs", type=int, help="runs of each job, of which the median is shown; default 5")
    parser.add_argument("--only", action="append", choices=names, metavar="JOB", help=", ".join(names))
    parser.add_argument("--peers", action="store_true", help="other libraries too, each installed for it")
    parser.add_argument("--write", action="store_true", help="write docs/performance.rst and its charts")
    options = parser.parse_args(arguments)
    options.runs = options.runs or (1 if options.quick else 5)
    if options.quick and options.write:
        parser.error("--write needs whole figures: leave out --quick")
    return options


def chosen(options: argparse.Namespace) -> list[Job]:
    """Return the jobs to do; say which ones are left out."""
    jobs = []
    for job in JOBS:
        if options.only and job.name not in options.only:
            continue
        if job.missing():
            print(f"{job.name}: left out, this version has no option {job.missing()}\n")
        elif not (options.quick and job.slow and not options.only):
            jobs.append(job)
    return jobs


def measured(systems: Systems, runs: int) -> Found:
    """Return the median figures of each system; a run has all of them, one after the other."""
    found: dict[str, list[measuring.Figures]] = {system: [] for system in systems}
    for run in range(runs):
        for system, measure in systems.items():
            print(f"  {system}, run {run + 1} of {runs} ...", file=sys.stderr, flush=True)
            try:
                found[system].append(measure())
            except FailedError as error:
                print(f"  {system}: {error}", file=sys.stderr)
    return {system: measuring.median(figures) for system, figures in found.items() if figures}


def systems_of(job: Job, options: argparse.Namespace) -> Systems:
    """Return the systems of a job, with peers when these are asked for."""
    systems = job.systems(Scale(quick=options.quick, full=options.full))
    if options.peers and job.name == "busy":
        return {**systems, **peers.installed()}
    return systems


def again(job: Job, options: argparse.Namespace) -> list[str]:
    """Return the arguments that do this job alone, as it was done."""
    flags = [f"--{name}" for name in ("full", "peers") if getattr(options, name)]
    return ["--only", job.name, *flags, "--write", "--runs", str(options.runs)]


def main(arguments: Sequence[str]) -> int:
    """Do the jobs, print what was found, write it if asked to."""
    options = parsed(arguments)
    print(f"{page.machine()}\n{page.versions()}\n{page.command(arguments)}\n")
    begun = time.monotonic()
    for job in chosen(options):
        runs = 1 if job.once else options.runs
        found = measured(systems_of(job, options), runs)
        if options.quick:
            lines = [textwrap.fill(each, 100, subsequent_indent="  ") for each in ratios(found, job.base)]
            print("\n".join([job.name, *(lines or [table(found)]), ""]), flush=True)
        else:
            print(f"{job.name}\n\n{textwrap.fill(job.about, 100)}\n\n{table(found)}\n", flush=True)
        if options.write:
            page.write(page.keep(job.name, found, again(job, options), runs))
    print(f"{time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
