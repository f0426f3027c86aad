"""oortd and the distribution's redis-server reply to the same command lines with the same bytes.

Lines for which oortd differs on purpose (docs/compatibility.md) are not here.
"""

from __future__ import annotations

import re
import shlex

import pytest
import redis

from tests.conftest import Oortd, RawClient

pytestmark = pytest.mark.system

CONNECTION = r"""
hello
hello 2
hello 4
hello abc
hello 99999999999999999999
hello 3 foo
hello 3 setname
hello 3 setname "a b"
hello 3 auth default x
hello 3 auth default
hello 3 auth foo x
hello 3 setname x extra
auth
auth x
auth a b
auth default b
auth a b c
select
select 0
select 15
select 16
select -1
select abc
select 1 2
select 999999999999999999999
select 2147483648
select -2147483649
select -2147483648
client "\r\nfoo\r\n"
select 3
reset
reset x
client
client foo
client "foo\r\nbar"
client id
client id x
client setname
client setname abc
client getname
client setname "a b"
client setname "a\nb"
client setname ""
client getname
client no-evict
client no-evict on
client no-evict off
client no-evict maybe
client list type foo
client list type pubsub
client list type master
client list id 0
client list id abc
client list id
client list foo bar
client list foo
client list type normal id 3
client kill
client kill 1.2.3.4:5
client kill nonsense
client kill id 999999
client kill id 0
client kill id -1
client kill id abc
client kill id 1 foo
client kill type foo
client kill type pubsub
client kill user foo
client kill user default skipme foo
client kill addr 1.2.3.4:1
client kill laddr 1.2.3.4:1
client kill skipme yes
client kill foo bar
"""

SERVER = r"""
command count x
command info get
command info GET Client|ID
command info nosuch get
command info set
command info mset
command info del
command info getex
command info append
command info incr
command info expire
command info ping
command info hello
command info auth
command info select
command info quit
command info reset
command info client|id
command info client|list
command info client|kill
command info config|get
command info config|set
command info dbsize
command info scan
command info keys
command info randomkey
command info flushall
command info flushdb
command info time
command info shutdown
command info save
command info bgsave
command info lastsave
command info debug
command info info
command info memory|usage
command docs client|id
command docs quit
command docs dbsize
command docs nosuch
command list filterby module nosuch
command list filterby aclcat nosuch
command list filterby foo x
command list filterby pattern
command list foo
command getkeys get a
command getkeys mset a b c d
command getkeys mset a b c
command getkeys del a b c
command getkeys memory usage k
command getkeys memory foo k
command getkeys set k
command getkeys ping x
command getkeys ping
command getkeys nosuch x
command getkeys config get x
command getkeys
command foo
config
config get
config get save
config get maxclients
config get TIMEOUT
config get tim?out
config get nosuch
config get proto-max-bulk-len
config get client-query-buffer-limit
config get databases
config get maxmemory
config get maxmemory-policy
config get appendfsync
config get requirepass
config get protected-mode
config get tcp-keepalive
config set
config set a
config set maxclients
config set nosuch x
config set maxclients 100 nosuch 3
config set maxclients abc
config set maxclients 100 maxclients 100
config set maxclients 1 timeout
config set timeout -1
config set timeout abc
config set timeout 3
config get timeout
config set timeout 0
config set databases 3
config set appendfsync foo
config set appendfsync always
config get appendfsync
config set appendfsync everysec
config set loglevel foo
config set loglevel notice
config get loglevel
config set protected-mode foo
config set protected-mode yes
config set tcp-keepalive foo
config set proto-max-bulk-len xxx
config set proto-max-bulk-len 1mb
config get proto-max-bulk-len
config set proto-max-bulk-len 512mb
config set client-query-buffer-limit 3
config set client-query-buffer-limit xx
config set client-query-buffer-limit 2gb
config get client-query-buffer-limit
config set client-query-buffer-limit 1gb
config set maxmemory 0
config set maxmemory-policy noeviction
config set save ""
config set dir /nonexistent
config set client-output-buffer-limit "foo 1 2 3"
config set client-output-buffer-limit "normal 1 2"
config set client-output-buffer-limit "normal a 0 0"
config set client-output-buffer-limit ""
config set requirepass ""
config resetstat
config resetstat x
config rewrite
config help
config foo
time x
lastsave x
save x
save
bgsave foo
bgsave schedule x
shutdown foo
shutdown abort
shutdown save nosave
shutdown nosave x
shutdown abort nosave
debug
debug foo
debug sleep
debug sleep 0
debug sleep abc
debug sleep 0 x
memory
memory usage
memory foo
info nosuch
info cluster
info modules
nosuch a b
nosuch
nosuch a b c d e f g h i j k l
"nosuch\r\nx" "a\r\nb"
"""

KEYSPACE = r"""
flushall
dbsize
dbsize x
keys
keys *
keys a b
randomkey
randomkey x
scan
scan abc
scan ""
scan 0
scan -1
scan +5
scan 99999999999999999999999
scan 0 match
scan 0 foo bar
scan 0 count 0
scan 0 count abc
scan 0 count -1
scan 0 type foo
scan 0 count 99999999999999999999
scan 0 match a* count
memory usage nokey
memory usage nokey samples
memory usage nokey samples abc
memory usage nokey samples -1
memory usage nokey samples 5 samples 5
memory usage nokey foo 3
info keyspace
set only 1
dbsize
keys *
keys o?ly
keys [n-p]nly
keys [^o]nly
keys "\\\\only"
keys only*x
randomkey
scan 0
scan 0 match on* count 100 type string
scan 0 match x*
scan 0 type list
select 5
dbsize
keys *
flushdb
select 0
dbsize
flushall foo
flushdb foo
flushall async x
flushdb async x
flushdb async
dbsize
set only 1
flushall SYNC
dbsize
"""


def without_ids(words: list[str], raw: bytes) -> bytes:
    """The reply with # for the connection's id, which necessarily differs."""
    if words[0] == "hello":
        return re.sub(rb"(?<=\$2\r\nid\r\n):\d+", b":#", raw)
    return b":#\r\n" if words == ["client", "id"] else raw


# With a password, but before AUTH.  Each line has its own connection.
LOCKED = r"""
ping
get
get a
nosuch
hello
hello 3
hello 4
hello abc
hello 3 foo
hello 3 setname x
hello 3 auth default wrong
hello 2 auth default sesame setname x
auth
auth wrong
auth nobody sesame
auth default sesame
auth default sesame more
client
client id
config get *
reset
quit
select 1
command count
debug
"""


def test_same_bytes_before_auth(shared_oortd: Oortd, redis_server: tuple[str, int]) -> None:
    def locked(address: tuple[str, int], line: str) -> bytes:
        words = shlex.split(line)
        with RawClient(address) as raw:
            return without_ids(words, raw.call(*words))

    servers = (shared_oortd.address, redis_server)
    with RawClient(servers[0]) as ours, RawClient(servers[1]) as theirs:
        try:
            for raw in (ours, theirs):
                assert raw.call("CONFIG", "SET", "requirepass", "sesame") == b"+OK\r\n"
            for line in LOCKED.strip().splitlines():
                assert locked(servers[0], line) == locked(servers[1], line), line
        finally:
            for raw in (ours, theirs):
                raw.call("CONFIG", "SET", "requirepass", "")


@pytest.mark.parametrize(
    "lines", [CONNECTION, SERVER, KEYSPACE], ids=["connection", "server", "keyspace"]
)
@pytest.mark.parametrize("protocol", ["2", "3"])
def test_same_bytes(
    shared_oortd: Oortd, redis_server: tuple[str, int], lines: str, protocol: str
) -> None:
    with shared_oortd.connect() as ours, RawClient(redis_server) as theirs:
        different = []
        for line in lines.strip().splitlines():
            words = shlex.split(line)
            sent = [word.encode().decode("unicode_escape").encode("latin-1") for word in words]
            for raw in (ours, theirs):
                # A line that changes the protocol must not change it for later lines.
                raw.call("HELLO", protocol)
            got, wanted = ours.call(*sent), theirs.call(*sent)
            if without_ids(words, got) != without_ids(words, wanted):
                different.append(f"{line}\n  oortd: {got!r}\n  redis: {wanted!r}")
        assert not different, "\n".join(different)


def documented(address: tuple[str, int]) -> dict[str, dict[str, object]]:
    """The COMMAND DOCS of every command and subcommand."""
    client = redis.Redis(*address, protocol=3, decode_responses=True)
    client.response_callbacks.clear()
    found: dict[str, dict[str, object]] = {}

    def gather(docs: dict[str, dict[str, object]]) -> None:
        for name, doc in docs.items():
            below = doc.pop("subcommands", {})
            found[name] = doc
            gather(below)  # type: ignore[arg-type]

    gather(client.execute_command("COMMAND", "DOCS"))
    client.close()
    return found


def test_same_documentation(shared_oortd: Oortd, redis_server: tuple[str, int]) -> None:
    ours, theirs = documented(shared_oortd.address), documented(redis_server)
    common = ours.keys() & theirs.keys()
    assert ours.keys() - common == {"client|setinfo", "client|no-touch"}
    for name in common:
        for fact in ("summary", "since", "group", "complexity", "arguments"):
            assert ours[name].get(fact) == theirs[name].get(fact), (name, fact)
