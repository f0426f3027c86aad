"""oort-bench: the command line.

Without --mix, oort-bench writes -num keys (-settest), then reads them and checks every value
(-gettest).  With --mix it reads and writes at the same time.

Exit status: 0 if every reply was right; 1 if a reply was wrong or the server could not be reached;
2 for an invalid command line.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace

from oort.errors import OortError
from oort.flags import FlagParser

from . import report
from .load import DISTRIBUTIONS, Load, Result, run


def _size_range(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    try:
        sizes = int(low), int(high or low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a size nor MIN:MAX") from None
    if not 0 <= sizes[0] <= sizes[1]:
        raise argparse.ArgumentTypeError(f"{text!r}: must be sizes of 0 or more, the smaller first")
    return sizes


def _mix(text: str) -> tuple[int, int]:
    reads, colon, writes = text.partition(":")
    try:
        shares = int(reads), int(writes)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not READS:WRITES, such as 9:1") from None
    if not colon or min(shares) < 0 or sum(shares) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: the shares must be 0 or more, not both 0")
    return shares


def _add(parser: argparse._ArgumentGroup, name: str, **options: object) -> None:
    """Add an option that may be written with one dash or two."""
    parser.add_argument(f"-{name}", f"--{name}", **options)  # type: ignore[arg-type]


def build_parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        prog="oort-bench",
        allow_abbrev=False,
        description="Send load to a Redis-protocol server and check its replies.",
    )
    requests = parser.add_argument_group("requests")
    _add(requests, "num", type=int, metavar="N", help="requests of each test (default: 100000)")
    _add(requests, "vsize", type=_size_range, default=(100, 100), metavar="BYTES",
         help="size of the values, or MIN:MAX (default: 100)")  # fmt: skip
    _add(requests, "settest", action="store_true", help="write (default: write, then read)")
    _add(requests, "gettest", action="store_true", help="read and check every value")
    _add(requests, "mix", type=_mix, metavar="READS:WRITES", help="read and write in these shares")
    _add(requests, "preload", action="store_true", help="first write every key, unmeasured")
    _add(requests, "allow-missing", action="store_true", help="a missing value is not an error")
    _add(requests, "keys", choices=DISTRIBUTIONS,
         help="order of the keys (default: sequential; with -mix uniform)")  # fmt: skip
    _add(requests, "keyspace", type=int, metavar="N",
         help="number of different keys (default: -num)")  # fmt: skip
    _add(requests, "zipf", type=float, default=0.99, metavar="S",
         help="Zipf exponent (default: 0.99)")  # fmt: skip
    _add(requests, "prefix", default="key:",
         help="prefix of the keys, before 12 digits (default: key:)")  # fmt: skip
    _add(requests, "seed", type=int, default=1, metavar="N",
         help="seed of values and order, the same to write and to read (default: 1)")  # fmt: skip
    pace = parser.add_argument_group("rate and duration")
    _add(pace, "clients", type=int, default=50, metavar="N", help="connections (default: 50)")
    _add(pace, "procs", type=int, default=1, metavar="N", help="threads (default: 1)")
    _add(pace, "pipeline", type=int, default=1, metavar="N",
         help="requests in flight on a connection (default: 1)")  # fmt: skip
    _add(pace, "rate", type=float, default=0.0, metavar="R",
         help="requests a second, on a fixed schedule (open loop)")  # fmt: skip
    _add(pace, "seconds", type=float, metavar="S", help="length of each test, instead of -num")
    _add(pace, "warmup", type=float, default=0.0, metavar="S",
         help="seconds before counting begins")  # fmt: skip
    _add(pace, "timeout", type=float, default=30.0, metavar="S",
         help="abort after so many seconds without a reply (default: 30)")  # fmt: skip
    server = parser.add_argument_group("server")
    _add(server, "host", default="127.0.0.1", help="(default: 127.0.0.1)")
    _add(server, "port", type=int, default=6139, help="(default: 6139)")
    _add(server, "user", help="user name for AUTH")
    _add(server, "password", default=os.environ.get("OORT_PASSWORD"),
         help="password for AUTH (default: $OORT_PASSWORD)")  # fmt: skip
    _add(server, "db", type=int, default=0, metavar="N", help="database (default: 0)")
    output = parser.add_argument_group("output")
    _add(output, "json", metavar="FILE", help='write the results as JSON ("-": standard output)')
    _add(output, "csv", metavar="FILE", help='write the results as CSV ("-": standard output)')
    _add(output, "quiet", action="store_true", help="print errors only")
    return parser


def _loads(arguments: argparse.Namespace) -> list[tuple[str, Load]]:
    number: int = arguments.num if arguments.num is not None else 100_000
    timed = arguments.seconds is not None
    distribution = arguments.keys or ("uniform" if arguments.mix else "sequential")
    base = Load(
        host=arguments.host,
        port=arguments.port,
        username=arguments.user,
        password=arguments.password,
        database=arguments.db,
        threads=arguments.procs,
        clients=arguments.clients,
        pipeline=arguments.pipeline,
        keys=distribution,
        keyspace=arguments.keyspace if arguments.keyspace is not None else number,
        zipf_exponent=arguments.zipf,
        prefix=arguments.prefix,
        value_min=arguments.vsize[0],
        value_max=arguments.vsize[1],
        seed=arguments.seed,
        requests=0 if timed and arguments.num is None else number,
        seconds=arguments.seconds or 0.0,
        warmup=arguments.warmup,
        rate=arguments.rate,
        timeout=arguments.timeout,
    )
    loads = []
    if arguments.preload:
        preload = replace(
            base,
            keys="sequential",
            requests=base.keyspace,
            seconds=0.0,
            warmup=0.0,
            rate=0.0,
            pipeline=max(base.pipeline, 16),
        )
        loads.append(("preload", preload))
    if arguments.mix:
        reads, writes = arguments.mix
        loads.append((f"mix {reads}:{writes}", replace(base, reads=reads, writes=writes)))
    both = not (arguments.mix or arguments.settest or arguments.gettest)
    if arguments.settest or both:
        loads.append(("set", base))
    if arguments.gettest or both:
        loads.append(("get", replace(base, reads=1, writes=0)))
    return loads


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    to_stdout = "-" in (arguments.json, arguments.csv)
    runs: list[tuple[str, Load, Result, bool]] = []
    bad = False
    try:
        for name, load in _loads(arguments):
            progress = report.Progress(name, load, sys.stderr)
            try:
                result = run(load, None if arguments.quiet else progress)
            finally:
                progress.end()
            runs.append((name, load, result, arguments.allow_missing))
            failed = bool(result.errors(arguments.allow_missing))
            bad = bad or failed
            if failed or not arguments.quiet:
                out = sys.stderr if to_stdout or (failed and arguments.quiet) else sys.stdout
                print(report.text(name, load, result, arguments.allow_missing), file=out)
        if arguments.json:
            report.write_json(arguments.json, [report.as_dict(*finished) for finished in runs])
        if arguments.csv:
            report.write_csv(arguments.csv, runs)
    except OortError as error:
        print(f"oort-bench: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"oort-bench: cannot write the results: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("oort-bench: interrupted", file=sys.stderr)
        return 130
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
