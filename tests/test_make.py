"""`make run` as the README gives it: it serves, and what was stored is there again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from tests.conftest import RawClient

ROOT = Path(__file__).parent.parent


def test_make_run_serves_and_keeps_what_it_stored(tmp_path: Path) -> None:
    # Not what an outer make says to its children; and a compiler's flags are no setting of oortd.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "OORT"))}
    env["OORT_CFLAGS"] = "-Werror"
    command = ["make", "run", "LISTEN=127.0.0.1:0", f"DATA={tmp_path / 'data'}"]
    for write in (True, False):
        log = tmp_path / f"log-{write}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True
            )
        try:
            found = None
            give_up = time.monotonic() + 300  # it may have to build first; never wait for ever
            while found is None:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < give_up, log.read_text()
                found = re.search(r"ready on 127\.0\.0\.1:(\d+),", log.read_text())
                time.sleep(0.01)
            with RawClient(("127.0.0.1", int(found[1]))) as raw:
                if write:
                    assert raw.call("SET", "greeting", "hello") == b"+OK\r\n"
                assert raw.call("GET", "greeting") == b"$5\r\nhello\r\n"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
