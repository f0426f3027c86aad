"""oort-bench: the command line.

Without --mix it writes (-settest) and then reads (-gettest) -num keys, checking
every value; with --mix it does both at once.  Exit status: 0 when every reply
was right, 1 when one was not or the server could not be reached, 2 for a wrong
command line.
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
        raise argparse.ArgumentTypeError(f"{text!r}: the sizes must be 0 or more, and rise")
    return sizes


def _mix(text: str) -> tuple[int, int]:
    reads, colon, writes = text.partition(":")
    try:
        shares = int(reads), int(writes)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not READS:WRITES, e.g. 9:1") from None
    if not colon or min(shares) < 0 or sum(shares) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: the shares must be 0 or more, not both 0")
    return shares


def _add(parser: argparse._ArgumentGroup, name: str, **options: object) -> None:
    """Every long option may be written with one dash or two."""
    parser.add_argument(f"-{name}", f"--{name}", **options)  # type: ignore[arg-type]


def build_parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        prog="oort-bench",
        allow_abbrev=False,
        description="Send load to a Redis-protocol server and check what it answers.",
    )
    what = parser.add_argument_group("what to send")
    _add(what, "num", type=int, metavar="N", help="requests of each test (default: 100000)")
    _add(what, "vsize", type=_size_range, default=(100, 100), metavar="BYTES",
         help="size of the values, or MIN:MAX (default: 100)")  # fmt: skip
    _add(what, "settest", action="store_true", help="write (default: write, then read)")
    _add(what, "gettest", action="store_true", help="read, and check every value")
    _add(what, "mix", type=_mix, metavar="READS:WRITES", help="read and write in these shares")
    _add(what, "preload", action="store_true", help="first write every key, unmeasured")
    _add(what, "allow-missing", action="store_true", help="a missing value is not an error")
    _add(what, "keys", choices=DISTRIBUTIONS,
         help="order of the keys (default: sequential; with -mix uniform)")  # fmt: skip
    _add(what, "keyspace", type=int, metavar="N", help="how many different keys (default: -num)")
    _add(what, "zipf", type=float, default=0.99, metavar="S", help="Zipf exponent (default: 0.99)")
    _add(what, "prefix", default="key:", help="of the keys, before 12 digits (default: key:)")
    _add(what, "seed", type=int, default=1, metavar="N",
         help="of values and draws; read with the seed you wrote with (default: 1)")  # fmt: skip
    how = parser.add_argument_group("how fast, how long")
    _add(how, "clients", type=int, default=50, metavar="N", help="connections (default: 50)")
    _add(how, "procs", type=int, default=1, metavar="N", help="threads (default: 1)")
    _add(how, "pipeline", type=int, default=1, metavar="N",
         help="requests in flight on a connection (default: 1)")  # fmt: skip
    _add(how, "rate", type=float, default=0.0, metavar="R",
         help="requests a second, on a schedule the server cannot slow (open loop)")  # fmt: skip
    _add(how, "seconds", type=float, metavar="S", help="length of each test, instead of -num")
    _add(how, "warmup", type=float, default=0.0, metavar="S",
         help="seconds before counting begins")  # fmt: skip
    _add(how, "timeout", type=float, default=30.0, metavar="S",
         help="give up when nothing is answered for so long (default: 30)")  # fmt: skip
    where = parser.add_argument_group("where")
    _add(where, "host", default="127.0.0.1", help="(default: 127.0.0.1)")
    _add(where, "port", type=int, default=6139, help="(default: 6139)")
    _add(where, "user", help="for AUTH")
    _add(where, "password", default=os.environ.get("OORT_PASSWORD"),
         help="for AUTH (default: $OORT_PASSWORD)")  # fmt: skip
    _add(where, "db", type=int, default=0, metavar="N", help="database (default: 0)")
    told = parser.add_argument_group("how it is told")
    _add(told, "json", metavar="FILE", help='write the results as JSON ("-": standard output)')
    _add(told, "csv", metavar="FILE", help='write the results as CSV ("-": standard output)')
    _add(told, "quiet", action="store_true", help="print errors only")
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
    told: list[tuple[str, Load, Result, bool]] = []
    bad = False
    try:
        for name, load in _loads(arguments):
            progress = report.Progress(name, load, sys.stderr)
            try:
                result = run(load, None if arguments.quiet else progress)
            finally:
                progress.end()
            told.append((name, load, result, arguments.allow_missing))
            failed = bool(result.errors(arguments.allow_missing))
            bad = bad or failed
            if failed or not arguments.quiet:
                out = sys.stderr if to_stdout or (failed and arguments.quiet) else sys.stdout
                print(report.text(name, load, result, arguments.allow_missing), file=out)
        if arguments.json:
            report.write_json(arguments.json, [report.as_dict(*one) for one in told])
        if arguments.csv:
            report.write_csv(arguments.csv, told)
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
