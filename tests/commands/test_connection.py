"""HELLO, AUTH, SELECT, RESET and CLIENT by a real client and by raw bytes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.conftest import Oortd, RawClient, until

StartOortd = Callable[..., Oortd]


@pytest.fixture(params=[2, 3])
def protocol(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_redis_py_works(shared_oortd: Oortd, protocol: int) -> None:
    client = shared_oortd.client(protocol, client_name="tester", decode_responses=True)
    client.flushall()
    assert client.set("a", "1", ex=100)
    assert client.incr("a") == 2
    assert client.mset({"b": "2", "c": "3"})
    assert client.mget("a", "b", "none") == ["2", "2", None]
    assert client.dbsize() == 3
    assert sorted(client.scan_iter("?")) == ["a", "b", "c"]
    assert client.randomkey() in {"a", "b", "c"}
    assert client.client_getname() == "tester"
    assert client.client_info()["name"] == "tester"
    assert client.client_info()["resp"] == str(protocol)
    assert client.client_id() in {int(c["id"]) for c in client.client_list()}
    assert client.command_count() == len(client.command())
    assert client.config_get("maxclients") == {"maxclients": "10000"}
    assert client.info()["redis_version"] == "7.0.15"
    assert "keys" in str(client.info("keyspace")["db0"])
    assert client.memory_usage("a") > 0
    assert client.memory_usage("none") is None
    assert client.save()
    assert client.lastsave()
    assert len(client.time()) == 2


def test_library_names_of_redis_py_are_listed(shared_oortd: Oortd) -> None:
    info = shared_oortd.client().client_info()
    assert (info["lib-name"], info["lib-ver"]) == ("redis-py", redis.__version__)


def test_client_line_has_the_real_figures(shared_oortd: Oortd) -> None:
    with shared_oortd.connect() as raw:
        port = raw.socket.getsockname()[1]
        raw.call("SELECT", "7")
        raw.call("CLIENT", "SETNAME", "me")
        raw.call("CLIENT", "NO-EVICT", "on")
        text = raw.call("CLIENT", "INFO").decode()
    fields = dict(word.partition("=")[::2] for word in text.split("\r\n")[1].split())
    assert fields["addr"] == f"127.0.0.1:{port}"
    assert fields["laddr"] == f"127.0.0.1:{shared_oortd.port}"
    assert (fields["db"], fields["name"], fields["flags"]) == ("7", "me", "e")
    assert (fields["cmd"], fields["user"], fields["resp"]) == ("client|info", "default", "2")


def test_reset_forgets_everything(start_oortd: StartOortd) -> None:
    daemon = start_oortd()
    with daemon.connect() as raw:
        raw.call("HELLO", "3", "SETNAME", "x")
        raw.call("SELECT", "9")
        assert raw.call("RESET") == b"+RESET\r\n"
        assert raw.call("CLIENT", "GETNAME") == b"$-1\r\n"
        assert b" db=0 " in raw.call("CLIENT", "INFO")
        daemon.client().config_set("requirepass", "pw")
        assert raw.call("PING") == b"+PONG\r\n"  # an authenticated connection stays authenticated
        raw.call("RESET")
        assert raw.call("PING") == b"-NOAUTH Authentication required.\r\n"


def test_quit_closes_after_the_reply(shared_oortd: Oortd) -> None:
    with shared_oortd.connect() as raw:
        assert raw.call("QUIT") == b"+OK\r\n"
        assert raw.at_end()


def test_password(start_oortd: StartOortd, protocol: int) -> None:
    daemon = start_oortd(env={"OORT_REQUIRE_PASS": "sésame"})
    with daemon.connect() as raw:
        assert raw.call("GET", "a") == b"-NOAUTH Authentication required.\r\n"
        assert raw.call("DBSIZE") == b"-NOAUTH Authentication required.\r\n"
        assert raw.call("HELLO", "3").startswith(b"-NOAUTH HELLO must be called")
        assert raw.call("AUTH", "wrong").startswith(b"-WRONGPASS ")
        assert raw.call("AUTH", "other", "sésame").startswith(b"-WRONGPASS ")
        assert raw.call("HELLO", "3", "AUTH", "default", "no").startswith(b"-WRONGPASS ")
        assert raw.call("GET", "a") == b"-NOAUTH Authentication required.\r\n"
        assert raw.call("HELLO", "3", "AUTH", "default", "sésame").startswith(b"%7\r\n")
        assert raw.call("GET", "a") == b"_\r\n"
    with daemon.connect() as raw:
        assert raw.call("AUTH", "sésame") == b"+OK\r\n"
        assert raw.call("AUTH", "wrong").startswith(b"-WRONGPASS ")
        assert raw.call("GET", "a") == b"$-1\r\n"
    assert daemon.client(protocol, password="sésame").ping()
    once = Retry(NoBackoff(), 0)
    with pytest.raises(redis.AuthenticationError):
        daemon.client(protocol, password="wrong", retry=once).ping()
    with pytest.raises(redis.AuthenticationError):
        daemon.client(protocol, retry=once).ping()


def test_a_password_set_while_running_counts_for_new_connections(oortd: Oortd) -> None:
    inside = oortd.client()
    inside.config_set("requirepass", "later")
    with oortd.connect() as raw:
        assert raw.call("PING") == b"-NOAUTH Authentication required.\r\n"
        assert raw.call("AUTH", "later") == b"+OK\r\n"
        assert raw.call("PING") == b"+PONG\r\n"


def test_without_a_password_everyone_may_run_commands(start_oortd: StartOortd) -> None:
    daemon = start_oortd(env={"OORT_REQUIRE_PASS": "once"})
    with daemon.connect() as raw:
        assert raw.call("PING") == b"-NOAUTH Authentication required.\r\n"
        daemon.client(password="once").config_set("requirepass", "")
        assert raw.call("PING") == b"+PONG\r\n"
        assert raw.call("DBSIZE") == b":0\r\n"
        assert raw.call("HELLO", "3").startswith(b"%7\r\n")
        daemon.client().config_set("requirepass", "again")
        assert raw.call("PING") == b"-NOAUTH Authentication required.\r\n"


def client_id(raw_reply: bytes) -> bytes:
    return raw_reply[1:-2]


def test_kill_by_every_filter(shared_oortd: Oortd) -> None:
    def pair() -> tuple[bytes, str]:
        raw = shared_oortd.connect()
        victims.append(raw)
        host, port = raw.socket.getsockname()
        return client_id(raw.call("CLIENT", "ID")), f"{host}:{port}"

    victims: list[RawClient] = []
    with shared_oortd.connect() as raw:
        identifier, _ = pair()
        assert raw.call("CLIENT", "KILL", "ID", identifier) == b":1\r\n"
        _, address = pair()
        assert raw.call("CLIENT", "KILL", address) == b"+OK\r\n"
        _, address = pair()
        assert raw.call("CLIENT", "KILL", "ADDR", address) == b":1\r\n"
        identifier, address = pair()
        assert raw.call("CLIENT", "KILL", "ID", identifier, "ADDR", "1.2.3.4:5") == b":0\r\n"
        assert raw.call("CLIENT", "KILL", "ID", identifier, "MAXAGE", "1000") == b":0\r\n"
        assert raw.call("CLIENT", "KILL", "ID", identifier, "TYPE", "pubsub") == b":0\r\n"
        assert raw.call("CLIENT", "KILL", "ID", identifier, "USER", "default") == b":1\r\n"
        for victim in victims:
            assert victim.at_end()
        assert raw.call("PING") == b"+PONG\r\n"


def test_killing_oneself(shared_oortd: Oortd) -> None:
    with shared_oortd.connect() as raw:
        own = client_id(raw.call("CLIENT", "ID"))
        assert raw.call("CLIENT", "KILL", "ID", own) == b":0\r\n"
        assert raw.call("CLIENT", "KILL", "ID", own, "SKIPME", "no") == b":1\r\n"
        assert raw.at_end()
    with shared_oortd.connect() as raw:
        host, port = raw.socket.getsockname()
        assert raw.call("CLIENT", "KILL", f"{host}:{port}") == b"+OK\r\n"
        assert raw.at_end()


def test_list_by_id_and_gone_clients_leave_the_list(shared_oortd: Oortd) -> None:
    with shared_oortd.connect() as raw, shared_oortd.connect() as other:
        ids = [client_id(r.call("CLIENT", "ID")) for r in (raw, other)]
        listed = raw.call("CLIENT", "LIST", "ID", *ids).decode()
        assert re.findall(r"\bid=(\d+)", listed) == [i.decode() for i in ids]
        other.call("QUIT")
        assert other.at_end()
        until(lambda: ids[1] not in re.findall(rb"\bid=(\d+)", raw.call("CLIENT", "LIST")))
        assert raw.call("CLIENT", "KILL", "ID", ids[1]) == b":0\r\n"


def test_replies_of_native_and_other_commands_keep_their_order(shared_oortd: Oortd) -> None:
    with shared_oortd.connect() as raw:
        raw.call("DEL", "n")
        words = [("INCR", "n"), ("DBSIZE",), ("DEBUG", "SLEEP", "0.001"), ("ECHO", "x"), ("TIME",)]
        for _ in range(200):
            for word in words:
                raw.send(*word)
        for i in range(200):
            assert raw.reply() == b":%d\r\n" % (i + 1)
            assert raw.reply().startswith(b":")
            assert raw.reply() == b"+OK\r\n"
            assert raw.reply() == b"$1\r\nx\r\n"
            assert raw.reply().startswith(b"*2\r\n")
