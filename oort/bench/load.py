"""One run of load: a typed interface to the load generator of csrc/load.h.

`run` connects, reports progress while the C threads work (without the GIL), and returns the result.
Every setting is checked first, so that errors name the invalid setting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from oort._native import ffi, lib
from oort.errors import LoadError

DISTRIBUTIONS = ("uniform", "zipf", "sequential")
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999, 0.9999)
PROGRESS_MS = 100


@dataclass(frozen=True)
class Load:
    """The requests to send and the server to send them to.

    Sizes are in bytes and times in seconds.
    """

    host: str = "127.0.0.1"
    port: int = 6139
    username: str | None = None
    password: str | None = None
    database: int = 0
    threads: int = 1
    clients: int = 50
    pipeline: int = 1
    reads: int = 0
    writes: int = 1
    keys: str = "uniform"
    keyspace: int = 100_000
    zipf_exponent: float = 0.99
    prefix: str = "key:"
    value_min: int = 100
    value_max: int = 100
    seed: int = 1
    requests: int = 0
    seconds: float = 0.0
    warmup: float = 0.0
    rate: float = 0.0
    timeout: float = 30.0


@dataclass(frozen=True)
class Latency:
    """The latency of one kind of request, in microseconds.

    `quantiles` maps a share, such as 0.99, to a latency.
    """

    mean: float
    minimum: float
    maximum: float
    quantiles: dict[float, float]


@dataclass(frozen=True)
class Result:
    """The result of a run.

    `gets` and `sets` exclude the warm-up; all other counts include it.
    """

    gets: int
    sets: int
    hits: int
    missing: int
    wrong_value: int
    wrong_size: int
    error_replies: int
    unexpected: int
    lost: int
    unanswered: int
    unsent: int
    bytes_in: int
    bytes_out: int
    answered: int
    seconds: float
    cpu_seconds: float
    timed_out: bool
    failed: bool
    error_texts: list[str] = field(default_factory=list)
    latency: dict[str, Latency] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        return self.gets + self.sets

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    @property
    def per_core_second(self) -> float:
        """Requests sent in a second of CPU time of this machine."""
        return self.answered / self.cpu_seconds if self.cpu_seconds > 0 else 0.0

    def errors(self, allow_missing: bool = False) -> dict[str, int]:
        """The number of errors of each kind; empty if every reply was right."""
        found = {
            "missing values": 0 if allow_missing else self.missing,
            "wrong values": self.wrong_value,
            "values of the wrong size": self.wrong_size,
            "error replies": self.error_replies,
            "unexpected replies": self.unexpected,
            "connections lost": self.lost,
            "requests unanswered": self.unanswered,
            "runs aborted, no reply in time": int(self.timed_out),
            "runs aborted, out of memory or descriptors": int(self.failed),
        }
        return {name: count for name, count in found.items() if count}


def _check(load: Load) -> None:
    if not 0 < load.port < 65536:
        raise LoadError(f"port {load.port}: must be 1 to 65535")
    if not 0 <= load.database < 65536:
        raise LoadError(f"database {load.database}: must be 0 to 65535")
    if load.clients < 1 or load.clients > 100_000:
        raise LoadError(f"{load.clients} clients: must be 1 to 100000")
    if not 1 <= load.threads <= load.clients:
        raise LoadError(f"{load.threads} threads: must be 1 to the number of clients")
    if not 1 <= load.pipeline <= 100_000:
        raise LoadError(f"pipeline {load.pipeline}: must be 1 to 100000")
    if load.keys not in DISTRIBUTIONS:
        raise LoadError(f"keys {load.keys!r}: must be one of {', '.join(DISTRIBUTIONS)}")
    if not 1 <= load.keyspace <= 10**12:
        raise LoadError(f"keyspace {load.keyspace}: must be 1 to 10^12")
    if load.keys == "zipf" and not 0 < load.zipf_exponent <= 10:
        raise LoadError(f"Zipf exponent {load.zipf_exponent}: must be above 0 and at most 10")
    if not 0 <= load.value_min <= load.value_max <= lib.OORT_VALUE_CAP:
        raise LoadError(
            f"value size {load.value_min}:{load.value_max}: must be 0 to {lib.OORT_VALUE_CAP}"
        )
    if not 0 <= load.requests < 2**63 or load.seconds < 0 or load.warmup < 0:
        raise LoadError("requests, seconds and warm-up must not be negative")
    if max(load.seconds, load.warmup, load.timeout) > 10**6 or load.timeout <= 0:
        raise LoadError("seconds, warm-up and timeout must be at most 10^6")
    if not load.requests and not load.seconds:
        raise LoadError("a run needs a number of requests or a number of seconds")
    if not 0 <= load.rate <= 1e9:
        raise LoadError(f"rate {load.rate}: must be 0 to 10^9 requests a second")
    if min(load.reads, load.writes) < 0 or not 0 < load.reads + load.writes < 2**31:
        raise LoadError(f"mix {load.reads}:{load.writes}: one share must be above 0")
    if len(load.prefix.encode()) > 256:
        raise LoadError("the key prefix must be at most 256 bytes")
    if any("\0" in text for text in (load.host, load.prefix, load.username, load.password) if text):
        raise LoadError("host, prefix, user name and password must not contain null bytes")


def _latency(engine: object, operation: int) -> Latency:
    def microseconds(share: float) -> float:
        return float(lib.oort_load_quantile_ns(engine, operation, share)) / 1000

    return Latency(
        mean=float(lib.oort_load_mean_ns(engine, operation)) / 1000,
        minimum=microseconds(0.0),
        maximum=microseconds(1.0),
        quantiles={share: microseconds(share) for share in QUANTILES},
    )


def _result(engine: object) -> Result:
    found = ffi.new("oort_load_result *")
    lib.oort_load_get_result(engine, found)
    latency = {}
    if found.gets:
        latency["get"] = _latency(engine, lib.OORT_LOAD_GET)
    if found.sets:
        latency["set"] = _latency(engine, lib.OORT_LOAD_SET)
    if found.gets and found.sets:
        latency["all"] = _latency(engine, lib.OORT_LOAD_ANY)
    return Result(
        gets=found.gets,
        sets=found.sets,
        hits=found.hits,
        missing=found.missing,
        wrong_value=found.wrong_value,
        wrong_size=found.wrong_size,
        error_replies=found.error_replies,
        unexpected=found.unexpected,
        lost=found.lost,
        unanswered=found.unanswered,
        unsent=found.unsent,
        bytes_in=found.bytes_in,
        bytes_out=found.bytes_out,
        answered=found.answered,
        seconds=found.elapsed_us / 1e6,
        cpu_seconds=found.cpu_us / 1e6,
        timed_out=bool(found.timed_out),
        failed=bool(found.failed),
        error_texts=[
            ffi.string(found.error_text[i]).decode("utf-8", "replace")
            for i in range(found.error_texts)
        ],
        latency=latency,
    )


def run(load: Load, progress: Callable[[int], None] | None = None) -> Result:
    """Run the load; LoadError if a setting is invalid or the server cannot be reached.

    `progress` is called ten times a second with the number of answered requests.  An exception that
    it raises, such as an interrupt, ends the run early and is passed on.
    """
    _check(load)
    keep = [
        ffi.NULL if text is None else ffi.new("char[]", text.encode())
        for text in (load.host, load.username, load.password, load.prefix)
    ]
    config = ffi.new("oort_load_config *")
    config.host, config.username, config.password, config.prefix = keep
    config.port = load.port
    config.database = load.database
    config.threads = load.threads
    config.clients = load.clients
    config.pipeline = load.pipeline
    config.reads = load.reads
    config.writes = load.writes
    config.keys = {
        "uniform": lib.OORT_LOAD_UNIFORM,
        "zipf": lib.OORT_LOAD_ZIPF,
        "sequential": lib.OORT_LOAD_SEQUENTIAL,
    }[load.keys]
    config.keyspace = load.keyspace
    config.zipf_exponent = load.zipf_exponent
    config.value_min = load.value_min
    config.value_max = load.value_max
    config.seed = load.seed % 2**64
    config.requests = load.requests
    config.duration_us = round(load.seconds * 1e6)
    config.warmup_us = round(load.warmup * 1e6)
    config.timeout_us = round(load.timeout * 1e6)
    config.rate = load.rate

    error = ffi.new("oort_error *")
    engine = lib.oort_load_start(config, error)
    if engine == ffi.NULL:
        raise LoadError(ffi.string(error.text).decode("utf-8", "replace"))
    try:
        while not lib.oort_load_wait(engine, PROGRESS_MS):
            if progress is not None:
                progress(int(lib.oort_load_answered(engine)))
        return _result(engine)
    finally:
        lib.oort_load_close(engine)
