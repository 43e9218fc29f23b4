"""The units: what systemd's own tools say of them, as they are deployed."""

import subprocess
from pathlib import Path

from deploy.host import ROOT, Host
from systemd import analyze

UNITS = ROOT / "deploy" / "systemd"
EXPOSURE_MAX = 2.0


def test_systemd_finds_nothing_wrong_and_little_exposed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (host.etc / "secrets").mkdir(parents=True)
    (host.etc / "secrets" / "kafka_sasl_password").touch()
    host.deploy(host.wheel("1.0"), STREAMINGCANDLE_INSTANCE="1m")
    units = [str(host.units / name) for name in ("streamingcandle.service", "streamingcandle@1m.service")]
    done = subprocess.run([analyze(), "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    tenths = str(int(EXPOSURE_MAX * 10))
    for unit in (units[0], str(host.units / "streamingcandle@.service")):
        command = [analyze(), "security", "--no-pager", "--offline=yes", f"--threshold={tenths}", unit]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Overall exposure level" in done.stdout


def test_verify_would_have_said_so(tmp_path: Path) -> None:
    text = (UNITS / "streamingcandle.service").read_text()
    (tmp_path / "wrong.service").write_text(text.replace("WatchdogSec=60", "WatchdogSeconds=60"))
    done = subprocess.run([analyze(), "verify", str(tmp_path / "wrong.service")], capture_output=True, check=False)
    assert b"WatchdogSeconds" in done.stderr


def test_the_template_differs_in_its_instance_alone() -> None:
    plain = (UNITS / "streamingcandle.service").read_text().splitlines()
    template = (UNITS / "streamingcandle@.service").read_text().splitlines()
    assert [line for line in plain if line not in template] == ["Description=Candles from a Kafka tick topic"]
    more = [line for line in template if line not in plain]
    assert [line for line in more if not line.startswith("#")] == [
        "Description=Candles from a Kafka tick topic: %i",
        "Environment=STREAMINGCANDLE_INSTANCE=%i",
    ]
