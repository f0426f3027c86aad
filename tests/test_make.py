"""`make run` as the README gives it: it serves, and what was stored is there again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

from tests.conftest import RawClient, until

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
            until(lambda log=log, process=process: b"ready on " in log.read_bytes()  # type: ignore[misc]
                  or process.poll() is not None)  # fmt: skip
            found = re.search(r"ready on 127\.0\.0\.1:(\d+),", log.read_text())
            assert found, log.read_text()
            with RawClient(("127.0.0.1", int(found[1]))) as raw:
                if write:
                    assert raw.call("SET", "greeting", "hello") == b"+OK\r\n"
                assert raw.call("GET", "greeting") == b"$5\r\nhello\r\n"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
