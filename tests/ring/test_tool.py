"""Tests of oort-ring through its command line."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oort.ring import files
from oort.ring.builder import Builder
from oort.ring.tool import main

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs oort-ring in a directory of its own; returns its output, or its error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, fails: bool = False) -> str:
        status = main(list(arguments))
        output, errors = capsys.readouterr()
        if fails:
            assert (status, output) == (1, "")
            assert errors.startswith("oort-ring: ")
            assert errors.count("\n") == 1
            return errors
        assert (status, errors) == (0, "")
        return output

    return run


def info(run: Run, name: str = "oort.ring") -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run(name, "info", "--json"))
    return result


def test_from_nothing_to_a_ring(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ring.conf").write_bytes(b"StoreType = valuestore\n")
    run("oort.builder", "create", "replicas=3", "config=ring.conf")
    ids = [
        run(
            "oort.builder", "add", "active=true", "capacity=1000", f"tier0=server{n}",
            f"tier1=z{n}", f"address0=127.0.0.1:800{n}", f"address1=127.0.0.2:800{n}",
            "meta=onmetalv1", f"config=[Section]\nNumber = {n}\n",
        ).strip()
        for n in range(1, 5)
    ]  # fmt: skip
    assert info(run, "oort.builder")["version"] == "0"
    run("oort.builder", "ring")
    shown = info(run)
    assert shown == info(run, "oort.builder")
    assert set(shown) == {
        "version", "replicas", "partition_bits", "conf_base64", "nodes", "table",
    }  # fmt: skip
    assert (shown["replicas"], shown["partition_bits"]) == (3, 2)
    assert base64.b64decode(shown["conf_base64"]) == b"StoreType = valuestore\n"
    assert shown["nodes"][1] == {
        "id": ids[1],
        "active": True,
        "capacity": 1000,
        "tiers": ["server2", "z2"],
        "addresses": ["127.0.0.1:8002", "127.0.0.2:8002"],
        "meta": "onmetalv1",
        "conf_base64": base64.b64encode(b"[Section]\nNumber = 2\n").decode(),
    }
    for placed in zip(*shown["table"], strict=True):
        assert len(set(placed)) == 3
        assert set(placed) <= set(ids)
    assert len(set(ids)) == 4
    assert "nothing to change" in run("oort.builder", "ring")

    run("oort.builder", "set", f"id={int(ids[0]):016x}", "active=false")
    assert "taken from inactive nodes" in run("oort.builder", "ring")
    assert int(info(run)["version"]) > int(shown["version"])
    assert not any(ids[0] in row for row in info(run)["table"])
    run("oort.builder", "remove", f"id={ids[0]}")
    run("oort.builder", "remove", f"id={ids[1]}")
    assert any(None in row for row in info(run, "oort.builder")["table"])
    assert "have no node" in run("oort.builder", "ring")
    table = run("oort.ring")
    assert all(node in table for node in ids[2:])
    assert "reachable" in table


def test_changes_of_nodes_and_settings(run: Run, tmp_path: Path) -> None:
    run("a.builder", "create", "points-allowed=2", "max_partition_bits=8", "move-wait=5")
    for n in range(3):
        run("a.builder", "add", f"id={n + 1}", f"capacity={n}", f"tier0=s{n}", f"meta=m{n}")
    run("a.builder", "node", "meta~=m[12]", "set", "capacity=7", "tier1=z", "address1=b")
    run("a.builder", "set", "id=1", "tier0=", "meta=")
    run("a.builder", "set", "replicas=2", "points-allowed=3", "config=a = 1")
    builder = files.read_builder("a.builder")
    assert [(n.capacity, n.tiers, n.addresses, n.meta) for n in builder.nodes] == [
        (0, (), (), ""),
        (7, ("s1", "z"), ("", "b"), "m1"),
        (7, ("s2", "z"), ("", "b"), "m2"),
    ]
    assert builder.replica_count == 2
    own = builder.settings
    assert (own.points_allowed, own.max_partition_bits, own.move_wait) == (3, 8, 5)
    assert run("a.builder", "config") == "a = 1"
    assert "m2" in run("a.builder", "node", "tier1=z")
    assert "s1" not in run("a.builder", "node", "id=1")
    run("a.builder", "ring")
    assert [line.split()[0] for line in run("a.ring", "partition", "0").splitlines()] != []
    run("a.builder", "pretend-elapsed", "5")
    assert {m for row in files.read_builder("a.builder").last_moves for m in row} == {5}
    run("a.ring", "copy", "b.ring")
    copied = (tmp_path / "b.ring").read_bytes()
    assert gzip.decompress(copied) == gzip.decompress((tmp_path / "a.ring").read_bytes())


def test_spellings_of_the_original_tool(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"plain")
    run("oort.builder", "create", "replicas=2", "config-file=a.toml")
    run("oort.builder", "add", "tier0=s1", "tier1=z1", "address0=10.0.0.1:1", "config-file=a.toml")
    run("oort.builder", "add", "tier0=s2", "tier1=z2", "meta=(two)", "config=a = 1\nb = 2")
    assert run("oort.builder", "config-file") == "plain"
    assert run("oort.builder", "tier").splitlines()[1:] == ["    0  s1 s2", "    1  z1 z2"]
    run("oort.builder", "ring")
    assert [node["capacity"] for node in info(run)["nodes"]] == [1, 1]
    assert {len(set(holders)) for holders in zip(*info(run)["table"], strict=True)} == {2}
    full = run("oort.ring", "fullnode", "meta~=(?i)TWO")
    assert "tier1          z2\n" in full
    assert full.endswith("configuration  11 bytes\n    a = 1\n    b = 2\n")
    run("oort.builder", "config", "c = 3")
    assert run("oort.builder", "config") == "c = 3"
    run("oort.builder", "config-file", "a.toml")
    assert run("oort.builder", "config") == "plain"
    run("v.2", "create")
    run("v.2", "ring")
    assert (tmp_path / "v.2.ring").exists()
    assert "FILTER" in run("help")


def test_a_meta_cannot_disturb_the_table(run: Run) -> None:
    run("a.builder", "create")
    run("a.builder", "add", "meta=a\nb\x1b[31m", "capacity=1")
    assert r"a\nb\x1b[31m" in run("a.builder", "info")
    assert info(run, "a.builder")["nodes"][0]["meta"] == "a\nb\x1b[31m"


@pytest.mark.parametrize(
    "arguments",
    [
        ("none.builder", "info"),
        ("a.builder", "create"),
        ("b.builder", "create", "replicas=0"),
        ("b.builder", "create", "replicas=three"),
        ("b.builder", "create", "colour=red"),
        ("a.builder", "add", "capacity=-1"),
        ("a.builder", "add", "capacity=4294967296"),
        ("a.builder", "add", "active=perhaps"),
        ("a.builder", "add", "capacity"),
        ("a.builder", "add", "capacity=1", "capacity=2"),
        ("a.builder", "add", "tier999=a"),
        ("a.builder", "add", "id=0"),
        ("a.builder", "add", "id=5"),
        ("a.builder", "add", "config=@none"),
        ("a.builder", "set", "capacity=5"),
        ("a.builder", "set", "id=6", "capacity=5"),
        ("a.builder", "set", "id=5"),
        ("a.builder", "set"),
        ("a.builder", "set", "move-wait=65536"),
        ("a.builder", "remove"),
        ("a.builder", "remove", "id=6"),
        ("a.builder", "node", "meta~=(", "set", "capacity=5"),
        ("a.builder", "pretend-elapsed", "-1"),
        ("a.builder", "copy"),
        ("a.builder", "copy", "none/a.builder"),
        ("a.builder", "info", "--yaml"),
        ("a.builder", "fly"),
        ("a.ring", "add"),
        ("a.ring", "ring"),
        ("a.ring", "config", "a = 1"),
        ("a.builder", "config-file", "none"),
        ("a.builder", "fullnode", "id=6"),
        ("a.builder", "tier", "1"),
        ("a.ring", "partition", "99"),
        ("bad.ring", "info"),
    ],
)
def test_an_error_is_one_line_and_changes_nothing(
    run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    run("a.builder", "create")
    run("a.builder", "add", "id=5", "capacity=1")
    run("a.builder", "ring")
    (tmp_path / "bad.ring").write_bytes(b"\x1f\x8b not really")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run(*arguments, fails=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_as_a_program(tmp_path: Path) -> None:
    files.write(tmp_path / "a.builder", Builder())
    command = [sys.executable, "-m", "oort.ring.tool"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "pretend-elapsed" in done.stdout
    done = subprocess.run(
        [*command, str(tmp_path / "a.builder"), "fly"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "oort-ring: no such verb: fly; see oort-ring --help\n"


def test_concurrent_changes_are_not_lost(tmp_path: Path) -> None:
    files.write(tmp_path / "a.builder", Builder())
    command = [sys.executable, "-m", "oort.ring.tool", str(tmp_path / "a.builder"), "add"]
    programs = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [program.wait() for program in programs] == [0] * 4
    assert len(files.read_builder(tmp_path / "a.builder").nodes) == 4
