"""`deploy/deploy-production.sh` below a prefix: what it makes, what it refuses, and what runs after each failure."""

import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.host import MARK, ROOT, Host
from disturbance import await_that

UNIT = "streamingcandle.service"
PASSWD = "root:x:0:0:root:/root:/bin/sh\n"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def _users(host: Host) -> None:
    (host.prefix / "etc").mkdir()
    for name, text in (("passwd", PASSWD), ("group", "root:x:0:\n"), ("shadow", ""), ("gshadow", "")):
        (host.prefix / "etc" / name).write_text(text)


def test_first_run_second_run_changed_settings_a_secret_and_the_end(host: Host) -> None:
    _users(host)
    wheel = host.wheel("1.0")
    said = host.deploy(wheel, STREAMINGCANDLE_TICK_TOPIC="of-whoever-deploys", LANG="xx")
    assert host.calls() == ["daemon-reload", f"restart {UNIT}", f"enable {UNIT}"]
    program = host.home / "current" / "bin" / "streamingcandle"
    assert subprocess.run([program], capture_output=True, check=True).stdout == b"streamingcandle 1.0\n"
    # The doctor sees what the service will, and nothing of whoever deploys.
    assert f"  STREAMINGCANDLE_CONFIG={host.etc}/settings.toml\n  STREAMINGCANDLE_PROFILE=production\n" in said
    assert f"  CREDENTIALS_DIRECTORY={host.etc}/secrets\n" in said
    assert "of-whoever-deploys" not in said
    modes = [host.mode(path) for path in (host.state, host.etc, host.etc / "secrets", host.etc / "settings.toml")]
    assert modes == ["0o750", "0o750", "0o700", "0o640"]
    assert host.mode(host.prefix / "var" / "log" / "streamingcandle") == "0o750"
    users = dict(line.split(":", 1) for line in (host.prefix / "etc" / "passwd").read_text().splitlines())
    assert ("streamingcandle" in users) == (os.geteuid() == 0)
    if "streamingcandle" in users:
        uid = int(users["streamingcandle"].split(":")[1])
        owners = [path.stat().st_uid for path in (host.state, host.etc, host.etc / "secrets")]
        assert (owners, 0 < uid < 1_000) == ([uid, 0, 0], True)
    unit = (host.units / UNIT).read_text()
    assert f"ExecStart={host.home}/current/bin/streamingcandle run\n" in unit

    before = host.tree()
    assert "nothing to do: 1.0-" in host.deploy(wheel)
    assert (host.calls(), host.tree()) == ([], before)
    assert host.run("--check")[0] == 0

    with (host.etc / "settings.toml").open("a") as file:
        file.write('timeframes = ["1m"]\n')
    host.deploy(wheel)
    assert host.calls() == ["daemon-reload", f"restart {UNIT}"]

    (host.etc / "secrets" / "kafka_sasl_password").write_text("x")
    (host.etc / "secrets" / "Not-One").write_text("x")
    (host.etc / "secrets" / "kafka_sasl_password").chmod(0o644)
    (host.etc / "streamingcandle.env").write_text('# mine\nSTREAMINGCANDLE_GRACE="2s"\n')
    said = host.deploy(wheel)
    assert "  STREAMINGCANDLE_GRACE=2s\n" in said
    assert "Not-One: not loaded" in said
    drop_in = (host.units / f"{UNIT}.d" / "20-secrets.conf").read_text().splitlines()
    assert drop_in[1:] == ["[Service]", f"LoadCredential=kafka_sasl_password:{host.etc}/secrets/kafka_sasl_password"]
    assert host.mode(host.etc / "secrets" / "kafka_sasl_password") == "0o600"
    assert host.calls() == ["daemon-reload", f"restart {UNIT}"]
    assert "CREDENTIALS_DIRECTORY=/elsewhere\n" in host.deploy(wheel, CREDENTIALS_DIRECTORY="/elsewhere")

    (host.state / "kept").touch()
    assert host.run("--uninstall")[0] == 0
    assert host.calls() == [f"disable --now {UNIT}", "daemon-reload"]
    assert not host.home.exists()
    assert list(host.units.rglob("streamingcandle*")) == []
    assert (host.state / "kept").exists()
    assert (host.etc / "settings.toml").exists()
    assert host.run("--uninstall")[0] == 0
    assert host.calls() == []


def test_upgrade_failures_and_rollback(host: Host) -> None:
    first, second = host.wheel("1.0"), host.wheel("2.0")
    host.deploy(first)
    host.calls()

    # The doctor refuses: nothing is switched, and systemd hears nothing.
    code, said = host.run(host.wheel("1.1", doctor=1))
    assert (code, host.current, host.calls()) == (1, "1.0", [])
    assert "doctor refuses, see above; nothing was switched, 1.0-" in said

    # It does not start: back to the former, which runs again.
    host.starts_not("1.2")
    code, said = host.run(host.wheel("1.2"))
    assert (code, host.current) == (1, "1.0")
    assert "did not start; journalctl -u streamingcandle.service says why" in said
    assert "1.0-" in said.splitlines()[-1]
    assert host.calls() == ["daemon-reload", f"restart {UNIT}"] * 2
    assert "no version before this one" in host.run("--rollback")[1]

    # It is not ready in time.
    host.hangs("2.0")
    code, said = host.run("--wait", "1", second)
    assert (code, host.current) == (1, "1.0")
    assert "not ready after 1 s" in said
    host.hangs()

    host.deploy(second)
    assert host.current == "2.0"
    assert host.run("--rollback")[0] == 0
    assert host.current == "1.0"
    host.starts_not("2.0")
    assert host.run("--rollback")[0] == 1
    assert host.current == "1.0"
    host.starts_not()
    assert host.run("--rollback")[0] == 0
    assert host.current == "2.0"
    host.deploy(host.wheel("3.0"))
    kept = sorted(path.name.rpartition("-")[0] for path in (host.home / "versions").iterdir())
    assert kept == ["2.0", "3.0"]


def test_a_first_version_that_does_not_start_leaves_none(host: Host) -> None:
    host.starts_not("1.0")
    code, said = host.run(host.wheel("1.0"))
    assert (code, host.current) == (1, "")
    assert "none runs now" in said
    assert host.calls()[-1] == f"disable --now {UNIT}"
    host.starts_not()
    host.deploy(host.wheel("1.0"))
    assert host.current == "1.0"


def test_ended_in_the_middle_it_goes_back_and_what_was_killed_is_finished(host: Host) -> None:
    host.deploy(host.wheel("1.0"))
    wheel = host.wheel("2.0")
    host.hangs("2.0")
    for number, current in ((signal.SIGTERM, "1.0"), (signal.SIGKILL, "2.0")):
        host.calls()
        with subprocess.Popen(
            host.command(wheel), env=host.variables(), stdout=subprocess.DEVNULL, process_group=0
        ) as process:
            await_that(lambda: f"restart {UNIT}" in host.calls(), "the restart")
            if number == signal.SIGTERM:
                process.terminate()  # it alone, as an operator would
            else:
                os.killpg(process.pid, number)
            process.wait(20)
        assert host.current == current
    host.hangs()
    (version,) = (host.home / "versions").glob("2.0-*")
    (version / ".complete").unlink()  # and as if it had been killed while it installed
    host.deploy(wheel)
    assert host.current == "2.0"
    assert f"restart {UNIT}" in host.calls()


def test_killed_at_each_step_of_a_switch_the_next_run_finishes_it(host: Host) -> None:
    host.deploy(host.wheel("1.0"))
    host.deploy(host.wheel("2.0"))
    steps = ["mv -T */before.new *", "mv -T */current.new *", "systemctl daemon-reload", "systemctl is-active *"]
    for number, step in enumerate([*steps, "mv -T */before */previous"]):
        former, wanted = ("2.0", "1.0") if number % 2 == 0 else ("1.0", "2.0")
        host.killed_at(step, "--rollback")
        assert host.run("--check")[0] == (1 if number else 0), step
        code, said = host.run("--rollback")
        seen = (code, host.current, host.linked("previous"), host.linked("before"))
        assert seen == (0, wanted, former, ""), (step, said)
        assert host.run("--check")[0] == 0
    assert (host.home / "deployments").read_text().splitlines()[-1].count("1.0-") == 1


def test_killed_on_the_way_to_a_version_that_does_not_start_the_one_that_ran_comes_back(host: Host) -> None:
    host.deploy(host.wheel("1.0"))
    host.deploy(host.wheel("2.0"))
    third = host.wheel("3.0")
    host.starts_not("3.0")
    host.killed_at("systemctl daemon-reload", third)
    assert (host.current, host.linked("before"), host.linked("previous")) == ("3.0", "2.0", "1.0")
    assert "a run was killed on its way from 2.0-" in host.run("--check")[1]
    code, said = host.run(third)
    assert (code, host.current, host.linked("previous"), host.up()) == (1, "2.0", "1.0", [UNIT]), said
    # A rollback after such a run goes to what ran, and starts it again whatever was started meanwhile.
    host.starts_not()
    host.killed_at("mv -T */before */previous", third)
    host.calls()
    assert host.run("--rollback")[0] == 0
    assert (host.current, host.linked("previous"), host.linked("before")) == ("2.0", "1.0", "")
    assert f"restart {UNIT}" in host.calls()
    # So does a deployment of what ran; and killed while it goes back, it is finished too.
    host.killed_at("systemctl is-active *", third)
    host.deploy(host.wheel("2.0"))
    assert (host.current, host.linked("previous"), f"restart {UNIT}" in host.calls()) == ("2.0", "1.0", True)
    host.starts_not("3.0")
    host.killed_at("rm -f */before", third)
    host.starts_not()
    host.deploy(third)
    assert (host.current, host.linked("previous"), host.linked("before")) == ("3.0", "2.0", "")
    # Old versions go as a whole or not at all.
    old = host.home / "versions" / "removed"
    host.killed_at("rm -rf */versions/removed", host.wheel("4.0"))
    assert old.exists()
    host.deploy(host.wheel("4.0"))
    kept = sorted(path.name.rpartition("-")[0] for path in (host.home / "versions").iterdir())
    assert kept == ["3.0", "4.0"]


def test_a_first_version_killed_that_does_not_start_leaves_none(host: Host) -> None:
    host.starts_not("1.0")
    host.killed_at("systemctl daemon-reload", host.wheel("1.0"))
    code, said = host.run(host.wheel("1.0"))
    assert (code, host.current, host.enabled(), host.up()) == (1, "", [], []), said
    assert not (host.home / "before").is_symlink()


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_an_odd_umask_is_none_of_its_business(host: Host, umask: int) -> None:
    code, said = host.run(host.wheel("1.0"), umask=umask)
    assert code == 0, said
    assert host.mode(host.etc / "settings.toml") == "0o640"
    assert host.mode(host.units / UNIT) == "0o644"
    program = host.home / "current" / "bin" / "streamingcandle"
    assert host.mode(program) == "0o755"
    writable = [path for path in host.home.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]
    closed = [path for path in host.home.rglob("*") if not path.stat().st_mode & 0o004]
    assert (writable, closed) == ([], [])


def _in_the_way(path: Path, text: str = "somebody's\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (lambda host: _in_the_way(host.home / "notes"), "opt/streamingcandle: not made by this script"),
        (lambda host: _in_the_way(host.units / UNIT), f"{UNIT}: not written by this script"),
        (lambda host: _in_the_way(host.units / f"{UNIT}.d" / "20-secrets.conf"), "20-secrets.conf: not written by"),
        (lambda host: _in_the_way(host.state), "kafka-streams/streamingcandle: is no folder"),
    ],
)
def test_what_is_not_ours_is_refused_before_anything_changes(
    host: Host, place: Callable[[Host], None], said: str
) -> None:
    place(host)
    before = host.tree()
    code, text = host.run(host.wheel("1.0"))
    assert (code, host.calls(), host.tree()) == (1, [], before)
    assert said in text
    assert text.count("\n") == 1


def test_what_is_somebody_elses_stays(host: Host) -> None:
    _users(host)
    (host.prefix / "elsewhere").mkdir()
    (host.prefix / "var/lib/kafka-streams").mkdir(parents=True)
    host.state.symlink_to(host.prefix / "elsewhere")  # a larger disk
    _in_the_way(host.etc / "settings.toml", 'grace = "2s"\n')
    _in_the_way(host.units / f"{UNIT}.d" / "90-mine.conf")
    _in_the_way(host.prefix / "elsewhere" / "snapshot")
    host.deploy(host.wheel("1.0"))
    assert (host.etc / "settings.toml").read_text() == 'grace = "2s"\n'
    assert host.state.is_symlink()
    before = host.tree()
    assert "nothing to do" in host.deploy(host.wheel("1.0"))
    assert host.tree() == before
    if "streamingcandle:" in (host.prefix / "etc" / "passwd").read_text():  # as root alone
        assert (host.prefix / "elsewhere").stat().st_uid > 0
    assert host.run("--uninstall")[0] == 0
    assert (host.units / f"{UNIT}.d" / "90-mine.conf").exists()
    assert (host.prefix / "elsewhere" / "snapshot").read_text() == "somebody's\n"


def test_a_dry_run_and_a_check_change_nothing(host: Host) -> None:
    wheel = host.wheel("1.0")
    for arguments, code in ((["--dry-run", wheel], 0), (["--check", wheel], 1), (["--check"], 1)):
        done = host.run(*arguments)
        assert (done[0], host.tree(), host.calls()) == (code, {}, []), done[1]
    host.deploy(wheel)
    host.etc.chmod(0o777)
    before = host.tree()
    code, said = host.run("--check")
    assert (code, host.tree()) == (1, before)
    assert f"would: {host.etc}: mode 750, was 777" in said
    assert host.run("--dry-run", "--uninstall")[0] == 0
    assert host.run("--dry-run", "--rollback")[0] == 1
    assert host.tree() == before
    host.calls()


def test_a_check_sees_what_does_not_run_and_what_was_never_applied(host: Host) -> None:
    wheel = host.wheel("1.0")
    host.deploy(wheel)
    assert host.run("--check")[0] == 0
    host.down(UNIT)
    for arguments in (["--check"], ["--check", wheel], ["--dry-run", wheel]):
        code, said = host.run(*arguments)
        assert (code, f"would: restarted: {UNIT}" in said) == (0 if arguments[0] == "--dry-run" else 1, True)
    host.deploy(wheel)
    with (host.etc / "settings.toml").open("a") as file:
        file.write('timeframes = ["1m"]\n')
    code, said = host.run("--check")
    assert (code, f"would: restarted: {UNIT}" in said) == (1, True)
    host.deploy(wheel)
    (host.units / "multi-user.target.wants" / UNIT).unlink()
    assert host.run("--check")[0] == 1


def test_units_that_run_and_are_not_enabled_are_stopped_by_uninstall(host: Host) -> None:
    host.deploy(host.wheel("1.0"))
    (host.units / "multi-user.target.wants" / UNIT).unlink()
    host.up("streamingcandle@3.service", "streamingcandle-exporter.service")
    said = host.run("--dry-run", "--uninstall")[1]
    assert f"would: {UNIT}: stopped" in said
    assert host.run("--uninstall")[0] == 0
    assert host.up() == ["streamingcandle-exporter.service"]


def test_uninstall_killed_at_each_step_is_finished(host: Host) -> None:
    wheel = host.wheel("1.0")
    removed = host.home.with_name("streamingcandle.removed")
    host.deploy(wheel)
    for step in (
        "systemctl daemon-reload",
        "mv -T */opt/streamingcandle *",
        "find *",
        "rm -rf */streamingcandle.removed",
    ):
        host.killed_at(step, "--uninstall")
        assert host.home.exists() != removed.exists()
    assert [path.name for path in removed.iterdir()] == [".deployed-here"]
    assert host.run("--uninstall")[0] == 0
    assert not removed.exists()
    # A deployment finishes it too, and takes no folder of somebody's for it.
    host.deploy(wheel)
    host.killed_at("find *", "--uninstall")
    assert f"{removed}: removed, left by a run that was killed" in host.deploy(wheel)
    assert not removed.exists()
    _in_the_way(removed / "notes")
    code, said = host.run("--uninstall")
    assert (code, "streamingcandle.removed: not made by this script" in said, host.current) == (1, True, "1.0")


def test_copies_of_secrets_that_a_killed_run_left_are_removed(host: Host) -> None:
    copies = [host.prefix / "run" / f"streamingcandle-doctor.{pid}.abc" for pid in (os.getpid(), 2**30)]
    for copy in copies:
        _in_the_way(copy / "kafka_sasl_password")
    host.deploy(host.wheel("1.0"))
    assert [copy.exists() for copy in copies] == [True, False]  # the first is of a run that goes on


def test_two_at_once_exclude_each_other(host: Host) -> None:
    host.deploy(host.wheel("1.0"))
    lock = os.open(host.home, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    code, said = host.run(host.wheel("2.0"))
    assert (code, host.current) == (1, "1.0")
    assert "another deployment runs here" in said
    os.close(lock)


def test_units_of_instances(host: Host) -> None:
    wheel = host.wheel("1.0")
    said = host.deploy(wheel, STREAMINGCANDLE_INSTANCE="1m")
    assert "  STREAMINGCANDLE_INSTANCE=1m\n" in said
    assert host.calls() == ["daemon-reload", "restart streamingcandle@1m.service", "enable streamingcandle@1m.service"]
    host.deploy(wheel, STREAMINGCANDLE_INSTANCE="5m")
    assert "enable streamingcandle@5m.service" in host.calls()
    # An upgrade restarts all that are enabled, and needs not be told of them.
    host.systemd_is(257)
    host.deploy(host.wheel("2.0"))
    assert host.calls() == ["daemon-reload", "restart streamingcandle@1m.service", "restart streamingcandle@5m.service"]
    assert (host.units / "streamingcandle@.service.d" / "10-backoff.conf").read_text().startswith(MARK)
    code, said = host.run(wheel, STREAMINGCANDLE_INSTANCE="0")
    assert (code, host.calls()) == (1, [])
    assert "would both publish it" in said
    assert host.run(wheel, STREAMINGCANDLE_INSTANCE="1 m")[0] == 2


def test_doctor_is_asked_for_each_unit(host: Host) -> None:
    for instance in ("1m", "5m"):
        host.deploy(host.wheel("1.0"), STREAMINGCANDLE_INSTANCE=instance)
    asked = re.compile(r"doctor of 2.0-\w+ for (\S+):$.*?INSTANCE=(\w+)", re.DOTALL | re.MULTILINE)
    code, said = host.run(host.wheel("2.0", doctor=1))
    assert asked.findall(said) == [(f"streamingcandle@{name}.service", name) for name in ("1m", "5m")]
    assert "doctor refuses: streamingcandle@1m.service streamingcandle@5m.service\n" in said
    assert (code, host.current) == (1, "1.0")


def test_of_several_units_each_is_tried_on_the_way_back(host: Host) -> None:
    units = [f"streamingcandle@{number}.service" for number in range(3)]
    wheel = host.wheel("1.0")
    for instance in "01":
        host.deploy(wheel, STREAMINGCANDLE_INSTANCE=instance)
    # One that does not start is no part of later deployments.
    host.starts_not(units[2])
    code, said = host.run(wheel, STREAMINGCANDLE_INSTANCE="2")
    assert (code, host.enabled(), host.up()) == (1, units[:2], units[:2])
    assert f"{units[2]}: stopped and disabled, as before\n" in said
    assert f" runs again: {units[0]} {units[1]}\n" in said
    host.deploy(host.wheel("2.0"))
    # Both fail somewhere: the second is started again all the same, and the first is named.
    host.starts_not(f"2.0 {units[0]}", f"3.0 {units[1]}")
    code, said = host.run(host.wheel("3.0"))
    assert (code, host.current, host.up()) == (1, "2.0", [units[1]])
    assert f"does not start either: {units[0]}; journalctl" in said.splitlines()[-1]
    assert "runs again" not in said
    assert host.run("--check")[0] == 1


def test_variables_as_systemd_reads_them_and_none_of_whoever_deploys(host: Host) -> None:
    values = {
        "A": ("'a b'  ", "a b"),
        "B": ('"a b"\t', "a b"),
        "C": ("  pass\\\\wor\\d  ", "pass\\word"),
        "D": ('"a \\"b\\" \\$c \\d" ', 'a "b" $c \\d'),
        "E": ('it\'s "so"', 'it\'s "so"'),
        "F": ("'a'\"b\" c", "abc"),
        "G": ("", ""),
        "state": ("of-the-file", "of-the-file"),
        "found": ("1", "1"),
    }
    _in_the_way(
        host.etc / "streamingcandle.env",
        "; no\n# A=no\n" + "".join(f"{name}={text}\n" for name, (text, _) in values.items()),
    )
    names = ("root", "state", "secrets", "program", "name", "unit", "path", "value", "found", "former", "ran_before")
    said = host.deploy(host.wheel("1.0"), **dict.fromkeys(names, "of-whoever-deploys"))
    for name, (_, value) in values.items():
        assert f"  {name}={value}\n" in said
    assert f"  HOME={host.state}\n" in said
    assert "of-whoever-deploys" not in said


def test_without_a_systemctl_named_a_prefix_tells_systemd_nothing(host: Host, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    trap = tmp_path / "bin" / "systemctl"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    trap.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    said = host.deploy(host.wheel("1.0"), STREAMINGCANDLE_SYSTEMCTL="", PATH=path)
    assert "systemd is not told: systemctl restart streamingcandle.service" in said
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--frobnicate"],
        ["--rollback", "--uninstall"],
        ["a.whl", "b.whl"],
        ["--wait", "soon", "a.whl"],
        ["--prefix"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(host: Host, arguments: list[str]) -> None:
    code, said = host.run(*arguments)
    assert (code, said.count("\n")) == (2, 1)


def test_an_installation_that_fails_switches_nothing(host: Host) -> None:
    host.deploy(host.wheel("1.0"))
    broken = Path(host.wheel("1.5"))
    shutil.copyfile(__file__, broken)
    host.sums()
    code, said = host.run(str(broken))
    assert (code, host.current) == (1, "1.0")
    assert "nothing was switched" in said
    assert "no such file" in host.run("missing.whl")[1]


def test_the_commands_of_the_page(host: Host) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "deployment.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line != "make wheel"]
    wheels = iter(("1.0", "1.0", "2.0", "3.0", "3.0"))
    for line in lines:
        if "INSTANCE=1m" in line:
            host.run("--uninstall")  # what the page says is refused
        words = shlex.split(line.removeprefix("sudo "))
        more = dict(words.pop(0).split("=") for _ in words[:] if "=" in words[0])
        assert words.pop(0) == "deploy/deploy-production.sh"
        arguments = [host.wheel(next(wheels)) if word == "dist/*.whl" else word for word in words]
        code, said = host.run(*arguments, umask=0o022, **more)
        assert code == 0, (line, said)
    assert len(lines) == 8
    assert host.current == ""
