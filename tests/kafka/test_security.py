"""Who we are and what we may, on a broker that asks: docs/security.md, kept to by a real authorizer.

One broker; users and certificates are made here. Processes that do not disturb each other run at the same time.
"""

import json
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.cimpl import NewPartitions

from broker import Broker
from disturbance import LIMIT_S, await_that, market
from guarded import Guarded, granted
from program import PROGRAM, differences, environment, last_candles, reference_candles, run
from streamingcandle.clock import SystemClock
from streamingcandle.kafka.rights import Right, commands, rights
from streamingcandle.settings import load_settings

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
TOLD_S = 15.0
"""A refusal is told within this, however long `wait` is."""
SETTINGS = load_settings({}, {})
TICKS = SETTINGS.text("tick_topic")
QUICK = {
    "STREAMINGCANDLE_TIMEFRAMES": "1m",
    "STREAMINGCANDLE_WAIT": "600s",
    # One of the tests adds a partition.
    "STREAMINGCANDLE_PARTITION_CHECK": "warn",
}


def _tick(clock: str) -> bytes:
    values = {"Exch": "N", "ExchType": "C", "Token": 9, "LastRate": 10.0, "TickDt": f"2026-01-02 {clock}"}
    return json.dumps(values).encode()


def _feed(broker: Broker) -> None:
    """Some ticks, garbage among them, and one that is too late for every window."""
    producer = Producer({"bootstrap.servers": broker.inside_bootstrap, "partitioner": "murmur2_random"})
    for tick in market(600):
        producer.produce(TICKS, tick.value, tick.key, timestamp=tick.at_ms)
    for clock in ("09:15:00", "10:00:00", "09:16:00"):
        producer.produce(TICKS, _tick(clock), b"9", timestamp=1_767_328_200_000)
    assert producer.flush(LIMIT_S) == 0


class World:
    """The broker, and users with passwords that stand nowhere else."""

    def __init__(self, folder: Path) -> None:
        self.password = f"marked-{secrets.token_urlsafe(12)}"
        self.guarded = Guarded(folder, {"plain": self.password})
        self.certificates = self.guarded.certificates
        self.folder = folder

    def rights(self, application_id: str) -> tuple[Right, ...]:
        """What an application with the timeframe 1m needs."""
        flags = {"STREAMINGCANDLE_APPLICATION_ID": application_id} | QUICK
        return rights(application_id, load_settings({}, flags).topics())

    def variables(self, name: str, listener: str = "SASL", **kafka: str) -> dict[str, str]:
        """Of an application, by default as the SCRAM user of the same name."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        found = environment(name, folder, self.guarded.at(listener)) | QUICK
        found["STREAMINGCANDLE_APPLICATION_ID"] = name
        del found["STREAMINGCANDLE_TICK_TOPIC"], found["STREAMINGCANDLE_CANDLE_TOPIC"]
        properties = {"security.protocol": "SSL", "ssl.ca.location": str(self.certificates.ca)}
        if listener != "MUTUAL":
            properties |= {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}
            properties |= {"sasl.username": name, "sasl.password": self.password}
        properties |= {key.replace("_", "."): text for key, text in kafka.items()}
        return found | {f"STREAMINGCANDLE_KAFKA_{k.upper().replace('.', '_')}": t for k, t in properties.items()}

    def certificate(self, path: Path) -> dict[str, str]:
        """Properties of one that shows it."""
        return {"ssl_certificate_location": str(path), "ssl_key_location": str(path)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give the broker running, with topics and ticks."""
    world = World(tmp_path_factory.mktemp("security"))
    with world.guarded.broker as broker:
        topics = SETTINGS.topics()
        world.guarded.add_topics([topics.ticks, *topics.candles, topics.dead_letters, topics.late])
        _feed(broker)
        yield world


def _at_once(runs: Mapping[str, tuple[Mapping[str, str], Sequence[str]]]) -> dict[str, tuple[int, str, float]]:
    """Programs, all started before the first is waited for: exit code, what was said, and after how many seconds."""
    clock = SystemClock()
    began_ms = clock.monotonic_ms()
    started = {
        name: subprocess.Popen(
            [PROGRAM, *arguments],
            env=dict(variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        for name, (variables, arguments) in runs.items()
    }
    ended = {}
    try:
        for name, process in started.items():
            said = process.communicate(timeout=LIMIT_S)[0].decode()
            ended[name] = (process.returncode, said, (clock.monotonic_ms() - began_ms) / 1_000)
    finally:
        for process in started.values():
            process.kill()
            process.wait()
    return ended


def _messages(said: str, level: str) -> list[str]:
    lines = [json.loads(line) for line in said.splitlines()]
    return [line["message"] for line in lines if line["level"] == level]


def test_the_page_has_the_rights(tmp_path: Path) -> None:
    wanted = rights(SETTINGS.text("application_id"), SETTINGS.topics())
    rows = re.findall(r"^\| (\w+) \| ([a-z-]+) \| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (r.operation, r.resource, f"{r.name}{'*' * r.is_prefix}", r.why, "exit 3" if r.is_needed else "a warning")
        for r in wanted
    ]
    shown = [line for line in PAGE.splitlines() if line.startswith("kafka-acls.sh")]
    assert shown == commands(wanted, "broker-1:9093", "candles")
    for number, text in enumerate(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        assert load_settings({"config": str(path)}, {}).kafka["security.protocol"].text in ("SASL_SSL", "SSL")


def test_a_run_with_exactly_these_rights(world: World) -> None:
    guarded = world.guarded
    guarded.add_users({"candles": world.password})
    guarded.allow([grant for line in PAGE.splitlines() if line.startswith("kafka-acls.sh") for grant in granted(line)])
    variables = world.variables("candles")
    for name in ("APPLICATION_ID", "TIMEFRAMES"):
        del variables[f"STREAMINGCANDLE_{name}"]
    inside = guarded.broker.inside_bootstrap
    done = run(variables, "run", "--until-end", "--flush")
    assert done.returncode == 0, done.stderr
    # The coordinators of a broker that has just started may have to load; the feed has garbage in it.
    known = ("asked again until", "rejected as")
    warnings = _messages(done.stderr.decode(), "warning")
    assert [warning for warning in warnings if not any(text in warning for text in known)] == []
    found, _ = last_candles(inside, SETTINGS.topics().candles)
    assert differences(found, reference_candles(inside, TICKS)) == []
    assert len(found) > 100
    # Another host, and a partition more: the member must rejoin under a name that it may know nothing of.
    shutil.rmtree(variables["STREAMINGCANDLE_STATE_DIR"])
    admin = guarded.admin()
    admin.create_partitions([NewPartitions(TICKS, 2)])[TICKS].result(LIMIT_S)
    _feed(guarded.broker)
    done = run(variables, "run", "--until-end")
    assert done.returncode == 0, done.stderr
    assert "nobody's: rejoining" in done.stderr.decode()
    assert "(snapshots topic) restored" in done.stderr.decode()
    assert world.password not in done.stderr.decode()


def test_plain_and_mutual_tls(world: World) -> None:
    names = ("plain", "mutual")
    world.guarded.add_topics([r.name for n in names for r in world.rights(n) if r.name.endswith(("-late", "-letters"))])
    world.guarded.allow([(name, right) for name in names for right in world.rights(name)])
    key_password = f"marked-{secrets.token_urlsafe(12)}"
    shown = world.certificate(world.certificates.issue("mutual", password=key_password))
    arguments = ("run", "--until-end", "--flush")
    ended = _at_once(
        {
            "plain": (world.variables("plain", sasl_mechanism="PLAIN"), arguments),
            "mutual": (world.variables("mutual", "MUTUAL", ssl_key_password=key_password, **shown), arguments),
        }
    )
    for code, said, _ in ended.values():
        assert code == 0, said
        assert f"{TICKS}[0]: taken over" in said
        assert key_password not in said


def test_who_is_refused_is_told_in_one_line(world: World) -> None:
    issue, shown = world.certificates.issue, world.certificate
    plain_port = {"bootstrap_servers": world.guarded.broker.inside_bootstrap}
    by_name = {"bootstrap_servers": world.guarded.at("SASL").replace("127.0.0.1", "localhost")}
    cases = {
        "plain": (
            world.variables("plain", sasl_mechanism="PLAIN", sasl_password=world.password[:-1]),
            "KAFKA_SASL_PASSWORD",
        ),
        "mechanism": (world.variables("feed", sasl_mechanism="SCRAM-SHA-256"), "supported mechanisms: SCRAM-SHA-512"),
        "authority": (world.variables("feed", ssl_ca_location=str(world.certificates.strange_ca)), "of no authority"),
        "expired": (world.variables("feed", "EXPIRED"), "out of its time (certificate has expired)"),
        "host": (world.variables("feed", **by_name), "for another host (Hostname mismatch"),
        "port": (world.variables("feed", **plain_port), "no TLS at this port"),
        "own, expired": (world.variables("m", "MUTUAL", **shown(issue("m", is_expired=True))), "our certificate"),
        "own, strange": (world.variables("m", "MUTUAL", **shown(issue("m", is_strange=True))), "our certificate"),
        "own, none": (world.variables("m", "MUTUAL"), "KAFKA_SSL_CERTIFICATE_LOCATION"),
    }
    commands_of = dict.fromkeys(cases, ("run",)) | {"authority": ("topics", "ensure")}
    ended = _at_once({name: (variables, commands_of[name]) for name, (variables, _) in cases.items()})
    for name, (code, said, _) in ended.items():
        *_, line = said.splitlines()  # behind the one that says where `run` reads and writes
        assert code == 3, (name, said)
        assert cases[name][1] in line, name
        assert world.password[:-1] not in said


def test_a_wrong_password_is_told_at_once(world: World) -> None:
    code, said, after_s = _at_once({"": (world.variables("feed"), ["run"])})[""]
    *_, line = said.splitlines()  # behind the one that says where `run` reads and writes
    assert code == 3
    assert "refuses us, user 'feed' by SCRAM-SHA-512" in line
    assert "check the credentials: STREAMINGCANDLE_KAFKA_SASL_USERNAME, STREAMINGCANDLE_KAFKA_SASL_PASSWORD" in line
    assert after_s < TOLD_S


def test_each_missing_right_is_named(world: World) -> None:
    users = {f"lacks-{number}": right for number, right in enumerate(world.rights("lacks"))}
    lacking = {}
    for user, place in ((user, int(user.rpartition("-")[2])) for user in users):
        lacking[user] = world.rights(user)[place]
    guarded = world.guarded
    guarded.add_users(dict.fromkeys(users, world.password))
    guarded.add_topics(
        [
            r.name
            for u in users
            for r in world.rights(u)
            if r.name.endswith(("-late", "-letters")) and r.operation == "Write"
        ]
    )
    guarded.allow([(u, right) for u in users for right in world.rights(u) if right != lacking[u]])
    arguments = ("run", "--until-end", "--flush")
    ended = _at_once({user: (world.variables(user), arguments) for user in users})
    for user, right in lacking.items():
        code, said, _ = ended[user]
        bare = msgspec.structs.replace(right, why="", is_needed=True)
        if not right.is_needed and right.operation == "Read":
            # Reading is asked for where a state is to be found.
            shutil.rmtree(world.variables(user)["STREAMINGCANDLE_STATE_DIR"])
            again = run(world.variables(user), *arguments)
            code, said = again.returncode, again.stderr.decode()
        lines = said.splitlines()[-1:] if right.is_needed else _messages(said, "warning")
        named = [line for line in lines if f"does not grant {user} {right};" in line]
        assert named, (right, said)
        command = re.search(r"kafka-acls\.sh [^;]*$", named[0].removesuffix("; taken as 1048588"))
        assert command is not None
        assert granted(command[0]) == [(user, bare)]
        assert code == (3 if right.is_needed else 0), said


def test_a_right_taken_away_while_running(world: World) -> None:
    guarded, name = world.guarded, "taken"
    wanted = world.rights(name)
    (candles,) = [right for right in wanted if right.name == SETTINGS.topics().candles[0]]
    guarded.add_users({name: world.password})
    guarded.add_topics([r.name for r in wanted if r.name.endswith(("-late", "-letters")) and r.operation == "Write"])
    guarded.allow([(name, right) for right in wanted])
    log = world.folder / "taken.log"
    with (
        log.open("wb") as output,
        subprocess.Popen([PROGRAM, "run"], env=world.variables(name), stderr=output) as process,
    ):
        try:
            await_that(lambda: "taken over" in log.read_text(), "a share")
            guarded.take(name, candles)
            producer = Producer({"bootstrap.servers": guarded.broker.inside_bootstrap})
            for clock in ("11:00:00", "11:05:00"):
                producer.produce(TICKS, _tick(clock), b"9", timestamp=1_767_331_800_000)
            assert producer.flush(LIMIT_S) == 0
            assert process.wait(TOLD_S) == 3, log.read_text()
        finally:
            process.kill()
    assert f"does not grant {name} {candles};" in log.read_text().splitlines()[-1]


def test_no_secret_shows(world: World, tmp_path: Path) -> None:
    """Everything that is said where things fail, with all kinds of secrets about, is searched for them."""
    marks = {name: secrets.token_urlsafe(18) for name in ("sasl", "key", "jaas", "url", "file")}
    odd = 'it\'s "odd" $x \\ ' + marks["sasl"]
    url = f"mongodb+srv://app:{marks['url']}@store/candles"
    jaas = f'PlainLoginModule required username="x" password="{marks["jaas"]}";'
    pem = world.certificates.issue("inline").read_text(encoding="ascii").partition("-----BEGIN CERT")[0]
    wrong = world.variables("feed", sasl_password=odd)
    nobody = wrong | {"STREAMINGCANDLE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "PYTHONFAULTHANDLER": "1"}
    broken, refused = tmp_path / "broken.toml", tmp_path / "refused.toml"
    broken.write_text(f'[kafka]\n"sasl.password" = "{marks["file"]}"\n= "{marks["file"]}"\n')
    refused.write_text(f'grace = "{url}"\n[kafka]\n"sasl.password" = "{marks["file"]}"\n')
    keyed = wrong | {
        "STREAMINGCANDLE_KAFKA_SSL_KEY_PEM": pem.replace("\n", "\n!", 2),
        "STREAMINGCANDLE_KAFKA_SSL_KEY_PASSWORD": marks["key"],
    }
    settings = {"STREAMINGCANDLE_FIELDS": jaas, "STREAMINGCANDLE_SESSIONS": url}
    log = tmp_path / "crash.log"
    with log.open("wb") as output, subprocess.Popen([PROGRAM, "run"], env=nobody, stderr=output) as process:
        ended = _at_once(
            {
                "wrong password": (wrong | {"STREAMINGCANDLE_KAFKA_DEBUG": "all"}, ("--debug", "run")),
                "broken file": (wrong, ("--debug", "--config", str(broken), "run")),
                "refused file": (wrong, ("--debug", "--config", str(refused), "run")),
                "no broker": (nobody | {"STREAMINGCANDLE_WAIT": "1s"}, ("--debug", "run")),
                "no key": (keyed, ("--debug", "run")),
                "shown": (wrong, ("config", "show")),
                "shown as JSON": (wrong, ("config", "show", "--json")),
                **{name: (wrong | {name: text}, ("--debug", "config", "show")) for name, text in settings.items()},
            }
        )
        await_that(lambda: "no broker yet" in log.read_text(), "a wait")
        seen = Path(f"/proc/{process.pid}/cmdline").read_text()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        process.send_signal(signal.SIGABRT)
    assert "Current thread" in log.read_text()
    assert re.search(r"Max core file size +0 ", limits)
    assert [name for name, (code, _, _) in ended.items() if code == 0] == ["shown", "shown as JSON"]
    assert "Traceback" in ended["refused file"][1]
    assert "Traceback" in ended["STREAMINGCANDLE_FIELDS"][1]
    said = "".join([seen, log.read_text(), *(text for _, text, _ in ended.values())])
    kept = [path.read_bytes() for path in (world.folder / "feed").rglob("*") if path.is_file()]
    secret = [*marks.values(), *(line for line in pem.splitlines() if "-----" not in line)]
    assert len(secret) > len(marks)
    assert [mark for mark in secret if mark in said or any(mark.encode() in content for content in kept)] == []
