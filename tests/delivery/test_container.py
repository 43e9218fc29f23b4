"""The image's definition and the compose file: linted, checked by schema, and true to the program they carry.

No engine builds or starts them here; what the image promises its process is kept in a namespace instead.
"""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from delivered import CONTAINER, ROOT, documents, instructions, run_tool, tool
from disturbance import await_that
from program import PROGRAM, environment, run
from streamingcandle.cli import MODULES
from streamingcandle.masking import is_secret
from streamingcandle.settings import KAFKA_PREFIX, PREFIX, load_settings
from streamingcandle.settings_table import PROFILES
from streamingcandle.state.directory import TURN_NAME

DOCKERFILE = CONTAINER / "Dockerfile"
HADOLINT = ("--config", CONTAINER / "hadolint.yaml", "--no-color")
STATE = "/var/lib/kafka-streams/streamingcandle"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = re.compile(r"\d+\.\d+\.\d+(-[a-z-]+)?")
READ_ONLY = """
state="$1" temp="$2" beside="$3"
shift 3
mount --bind "$state" "$state"
mount -t tmpfs -o size=16m,mode=1777 tmpfs "$temp"
for place in $(findmnt --noheadings --raw --output TARGET | grep -vE '^/(dev|proc|sys)(/|$)'); do
    mount -o remount,bind,ro "$place"
done
mount -o remount,bind,rw "$state"
mount -o remount,bind,rw "$temp"
! touch "$beside" 2>/dev/null || exit 99
exec env TMPDIR="$temp" "$@"
"""
"""Everything is read-only but a temp directory and one volume: what compose.yaml and the StatefulSet ask for."""


def values(word: str, *, stage: int = -1) -> list[str]:
    """What follows an instruction, in the last stage or another."""
    stages: list[list[tuple[str, str]]] = []
    for found, rest in instructions(DOCKERFILE.read_text()):
        if found == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((found, rest))
    return [rest for found, rest in stages[stage] if found == word]


def variables() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in values("ENV") for pair in line.split())


def compose() -> Any:
    (read,) = documents((CONTAINER / "compose.yaml").read_text())
    return read


def test_hadolint_has_nothing_to_say(tmp_path: Path) -> None:
    assert run_tool("hadolint", *HADOLINT, DOCKERFILE) == ""
    careless = tmp_path / "Dockerfile"
    careless.write_text("FROM python:latest\nRUN pip install uv\nCMD streamingcandle run\n")
    said = tool("hadolint", *HADOLINT, careless)
    assert said.returncode != 0
    assert {"DL3007", "DL3013", "DL3025"} <= set(re.findall("DL[0-9]+", said.stdout))


def test_no_shell_and_no_root() -> None:
    found = instructions(DOCKERFILE.read_text())
    said = [rest for word, rest in found if word in ("RUN", "CMD", "ENTRYPOINT")]
    said += [rest.partition(" CMD ")[2] for word, rest in found if word == "HEALTHCHECK"]
    assert len(said) >= 9
    assert [rest for rest in said if not re.fullmatch(r'\[".*"\]', rest)] == []
    assert values("USER") == ["10001:10001"]
    assert '"--owner=10001", "--group=10001"' in " ".join(values("RUN"))


def test_versions_are_pinned_and_those_of_the_project() -> None:
    arguments = dict(rest.split("=") for word, rest in instructions(DOCKERFILE.read_text()) if word == "ARG")
    images = [rest.split()[0] for word, rest in instructions(DOCKERFILE.read_text()) if word == "FROM"]
    for name, version in arguments.items():
        images = [image.replace(f"${{{name}}}", version) for image in images]
    assert [image for image in images if not PINNED.fullmatch(image.partition(":")[2])] == []
    assert arguments["PYTHON_VERSION"].startswith(PROJECT["requires-python"].removeprefix(">=") + ".")
    floor = tomllib.loads((ROOT / "rust" / "Cargo.toml").read_text())["package"]["rust-version"]
    assert [int(part) for part in arguments["RUST_VERSION"].split(".")] >= [int(part) for part in floor.split(".")]
    assert f'org.opencontainers.image.version="{PROJECT["version"]}"' in " ".join(values("LABEL"))
    assert f'org.opencontainers.image.licenses="{PROJECT["license"]}"' in " ".join(values("LABEL"))


def test_the_context_is_what_the_build_takes_and_no_more() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = [rest for rest in values("COPY", stage=1) if not rest.startswith("--from")]
    sources = {name for rest in copied for name in rest.split()[:-1]}
    assert {name.partition("/")[0] for name in let_in} == sources
    tracked = subprocess.run(["git", "ls-files", *let_in], cwd=ROOT, capture_output=True, text=True, check=True)
    files = set(tracked.stdout.splitlines())
    assert {"LICENSE", "README.md", "pyproject.toml", "uv.lock", "rust/Cargo.lock", "rust/src/lib.rs"} <= files
    assert {f"src/streamingcandle/{name}" for name in ("py.typed", "candles/sessions.csv", "cli/state.py")} <= files
    assert [name for name in files if name.startswith("rust/fuzz") or name.endswith(".so")] == []


def test_the_image_s_variables_are_settings() -> None:
    found = variables()
    settings = load_settings({}, found)
    assert settings.warnings == ()
    assert (settings.profile, settings.text("state_dir")) == ("production", STATE)
    assert settings.text("state_dir") == PROFILES["production"]["state_dir"]
    assert settings.text("data_dir").startswith(f"{STATE}/")
    assert values("VOLUME") == [f'["{STATE}"]']
    assert [name for name in found if is_secret(name)] == []


def test_what_the_image_starts_and_asks_exists(tmp_path: Path) -> None:
    assert values("ENTRYPOINT") == ['["streamingcandle"]']
    assert values("CMD") == ['["run"]']
    assert "run" in MODULES
    (health,) = values("HEALTHCHECK")
    assert health.endswith('CMD ["streamingcandle", "state", "alive"]')
    assert run(environment("t", tmp_path, None), "state", "alive").returncode == 1


def test_compose_is_valid_by_the_specification_and_tidy(tmp_path: Path) -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("services: {a: {image: b, mem_limits: 1g}}\n")
    said = tool("check-jsonschema", *schema, CONTAINER / "compose.yaml", wrong).stdout
    assert "wrong.yaml::$.services.a" in said
    assert "compose.yaml" not in said
    run_tool("yamllint", "--strict", "--config-file", ROOT / "deploy" / "yamllint.yaml", ROOT / "deploy")
    assert tool("yamllint", "--strict", "-", stdin="a: 1\na: 2\n").returncode != 0


def test_compose_s_parts_agree() -> None:
    found = compose()
    services = found["services"]
    assert {"kafka", "mongodb", "prometheus", "grafana", "candles", "topics", "feed"} == set(services)
    versions = {name: each["image"].partition(":")[2].removeprefix("v") for name, each in services.items()}
    assert [name for name, version in versions.items() if not PINNED.fullmatch(version)] == []
    assert versions["candles"] == PROJECT["version"]
    pom = (ROOT / "tests" / "broker" / "pom.xml").read_text()
    assert f"<version>{versions['kafka']}</version>" in pom  # what the tests ran against
    named = {volume.partition(":")[0] for each in services.values() for volume in each.get("volumes", [])}
    assert named == set(found["volumes"])
    for each in services.values():
        assert set(each.get("depends_on", [])) <= set(services)
        assert all(port.startswith("127.0.0.1:") for port in each.get("ports", []))
        assert [name for name in each.get("environment", {}) if is_secret(name)] == []
    assert services["candles"]["volumes"] == [f"candles:{STATE}"]
    assert (CONTAINER / services["candles"]["build"]["context"]).resolve() == ROOT
    assert (ROOT / services["candles"]["build"]["dockerfile"]) == DOCKERFILE


def test_compose_gives_nobody_more_than_he_needs() -> None:
    found = compose()
    for name, each in found["services"].items():
        assert (each["read_only"], each["cap_drop"]) == (True, ["ALL"]), name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        assert int(each["user"].partition(":")[0]) > 0, name
        assert re.fullmatch(r"\d+m", each["mem_limit"]), name
        assert 0 < each["pids_limit"] <= 512, name
        assert each["logging"] == {"driver": "local"}, name
        assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode"} & set(each), name
        assert all(":exec," not in mount for mount in each.get("tmpfs", [])) or name == "kafka"
        # Volumes of its own, nothing of the host's.
        assert all(re.fullmatch(r"[a-z]+:/[a-z/-]+", volume) for volume in each.get("volumes", [])), name
        assert ("host" in each["networks"]) == ("ports" in each), name
    networks = found["networks"]
    assert {name for name, each in networks.items() if each.get("internal") is not True} == {"host"}
    options = networks["host"]["driver_opts"]
    assert options["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    joined = {name: set(each["networks"]) for name, each in found["services"].items()}
    assert joined["candles"] == joined["topics"] == joined["feed"] == {"log"}
    assert [name for name, some in joined.items() if "log" in some] == ["kafka", "topics", "candles", "feed"]
    # The controller's listener is the broker's own.
    kafka = found["services"]["kafka"]["environment"]
    assert "CONTROLLER://localhost:" in kafka["KAFKA_LISTENERS"]
    assert kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    # A password that everybody knows is none.
    grafana = found["services"]["grafana"]["environment"]
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


@pytest.mark.parametrize("name", ["candles", "topics", "feed"])
def test_compose_s_services_of_ours(name: str) -> None:
    services = compose()["services"]
    each = services[name]
    settings = load_settings({}, variables() | each["environment"])
    assert settings.warnings == ()
    assert f"INSIDE://{settings.bootstrap_servers}" in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert (each["read_only"], each["cap_drop"], each["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert each["tmpfs"] == ["/tmp:size=64m,mode=1777"]
    command = each.get("command", ["run"])
    done = subprocess.run([PROGRAM, *command, "--help"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert [word for word in command if word.startswith("--") and word not in done.stdout] == []


def test_every_variable_in_the_folder_is_known() -> None:
    text = "".join(path.read_text() for path in CONTAINER.iterdir())
    names = set(re.findall(rf"\b{PREFIX}[A-Z_]+", text))
    assert load_settings({}, {name: "1" for name in names if name.startswith(KAFKA_PREFIX)}).warnings == ()
    assert len(names) >= 4


@contextmanager
def contained(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program in such a root, its state below `folder`; the uid is the user's own."""
    state, temp = folder / "volume", folder / "temp"
    state.mkdir(exist_ok=True)
    temp.mkdir(exist_ok=True)
    ours = environment("t", state, None)
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc", READ_ONLY, "sh"]
    command = [*unshare, state, temp, folder / "beside", PROGRAM, *arguments]
    with subprocess.Popen(list(map(str, command)), env=ours, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_it_runs_with_a_read_only_root_a_tmp_and_a_volume(tmp_path: Path) -> None:
    with contained(tmp_path, "simulate", "--ticks", "300", "--date", "2026-01-02", "--speed", "0") as process:
        assert process.wait(60) == 0, process.stderr and process.stderr.read()
    with contained(tmp_path, "run") as process:
        instance = tmp_path / "volume" / "state" / "t-app" / "instance-0"
        await_that((instance / "owner").exists, "an instance")
        (instance / TURN_NAME).touch()
        with contained(tmp_path, "state", "alive") as asked:
            assert asked.wait(60) == 0, asked.stderr and asked.stderr.read()
        process.terminate()
        assert process.wait(30) == 0
        assert process.stderr is not None
        said = process.stderr.read()
    assert b"Read-only file system" not in said
    assert list(instance.glob("snapshot-0-*")), said
