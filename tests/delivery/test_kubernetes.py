"""The Kubernetes manifests: as kustomize renders them, checked by schema, and true to the image and the settings.

No cluster takes them here.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from delivered import KUBERNETES, ROOT, documents, run_tool, tool
from streamingcandle.masking import is_secret
from streamingcandle.settings import PREFIX, load_settings
from streamingcandle.settings_table import duration_ms

OLDEST, NEWEST = "1.31", "1.37"
"""Kubernetes' versions whose schemas must accept them: when unhealthyPodEvictionPolicy came to stay, and today's."""
KINDS = {"ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet"}
PROBE = ["streamingcandle", "state", "alive"]
SECRETS = "/run/secrets/streamingcandle"


@pytest.fixture(scope="module")
def rendered() -> str:
    """What `kubectl apply --kustomize` would send."""
    return run_tool("kubectl", "kustomize", KUBERNETES)


@pytest.fixture(scope="module")
def objects(rendered: str) -> dict[str, Any]:
    """By kind; there is one of each."""
    read = documents(rendered)
    assert len(read) == len({each["kind"] for each in read})
    return {each["kind"]: each for each in read}


@pytest.fixture(scope="module")
def pod(objects: dict[str, Any]) -> Any:
    return objects["StatefulSet"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Any) -> Any:
    (only,) = pod["containers"]
    return only


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_schema(rendered: str, version: str, tmp_path: Path) -> None:
    (tmp_path / "right.yaml").write_text(rendered)
    assert "enableServiceLinks: false" in rendered
    (tmp_path / "wrong.yaml").write_text(rendered.replace("enableServiceLinks", "enableServiceLink"))
    check = ("kubernetes-validate", "--strict", "--kubernetes-version", version)
    done = tool(*check, tmp_path / "right.yaml", tmp_path / "wrong.yaml")
    lines = (done.stdout + done.stderr).splitlines()
    assert len([line for line in lines if "right.yaml passed" in line]) == len(KINDS), lines
    assert [line for line in lines if "right.yaml" in line and "passed" not in line] == []
    assert done.returncode != 0
    assert "'enableServiceLink' was unexpected" in "".join(lines)


def test_every_file_is_part_of_it_and_there_is_no_secret(objects: dict[str, Any], rendered: str) -> None:
    (kustomization,) = documents((KUBERNETES / "kustomization.yaml").read_text())
    taken = {*kustomization["resources"], *kustomization["configMapGenerator"][0]["envs"], "kustomization.yaml"}
    assert {path.name for path in KUBERNETES.iterdir()} == taken
    assert set(objects) == KINDS
    literal = re.findall(rf"({PREFIX}\w+): (.*)", rendered)
    assert [name for name, _ in literal if is_secret(name) and not name.endswith("_FILE")] == []
    assert {text.rpartition("/")[0] for name, text in literal if name.endswith("_FILE")} == {SECRETS}


def test_nothing_is_allowed_that_is_not_needed(objects: dict[str, Any], pod: Any, container: Any) -> None:
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    assert objects["ServiceAccount"]["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    context = pod["securityContext"]
    assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    dockerfile = (ROOT / "deploy" / "container" / "Dockerfile").read_text()
    assert f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile
    assert context["fsGroup"] == context["runAsGroup"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    for asked in ("requests", "limits"):
        assert set(container["resources"][asked]) == {"cpu", "memory", "ephemeral-storage"}


def test_settings_are_known_and_point_into_the_pod(objects: dict[str, Any], container: Any, tmp_path: Path) -> None:
    settings_map = objects["ConfigMap"]
    assert settings_map["immutable"] is True
    assert container["envFrom"] == [{"configMapRef": {"name": settings_map["metadata"]["name"]}}]
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    given = dict(settings_map["data"])
    for name, text in given.items():
        if name.endswith("_FILE"):
            (tmp_path / Path(text).name).write_text("x" * 8)
            (tmp_path / Path(text).name).chmod(0o440)  # as the manifest has it mounted
            given[name] = str(tmp_path / Path(text).name)
    (tmp_path / "ca.crt").touch()
    settings = load_settings({}, given)
    assert (settings.warnings, settings.profile) == ((), "production")
    assert settings.kafka["sasl.password"].text == "x" * 8
    assert settings.text("state_dir") in mounts
    assert {SECRETS, "/tmp"} < set(mounts)
    assert mounts[SECRETS]["readOnly"] is True


def test_secret_files_are_those_that_the_settings_name(objects: dict[str, Any], pod: Any) -> None:
    (volume,) = [each["secret"] for each in pod["volumes"] if "secret" in each]
    mounted = {f"{SECRETS}/{item['path']}" for item in volume["items"]}
    named = {text for text in objects["ConfigMap"]["data"].values() if text.startswith(f"{SECRETS}/")}
    assert mounted == named
    page = (ROOT / "docs" / "containers.md").read_text()
    command = re.search(rf"create secret generic {volume['secretName']} (.*?)\n```", page, re.DOTALL)
    assert command is not None
    assert set(re.findall(r"--from-file=([\w.]+)=", command[1])) == {item["key"] for item in volume["items"]}
    # Four octal digits, read as YAML 1.1: the group may read, and fsGroup is that group.
    assert volume["defaultMode"] == 0o440


def test_volumes_are_mounted_and_mounts_are_volumes(objects: dict[str, Any], pod: Any, container: Any) -> None:
    claims = [each["metadata"]["name"] for each in objects["StatefulSet"]["spec"]["volumeClaimTemplates"]]
    assert {each["name"] for each in container["volumeMounts"]} == {*claims, *(each["name"] for each in pod["volumes"])}
    (state,) = claims
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == state]
    assert mount["mountPath"] == objects["ConfigMap"]["data"][f"{PREFIX}STATE_DIR"]


def test_probes_ask_what_the_image_asks_and_outwait_a_start(container: Any) -> None:
    probes = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    assert [probe["exec"]["command"] for probe in probes.values()] == [PROBE] * 3
    assert 'CMD ["streamingcandle", "state", "alive"]' in (ROOT / "deploy" / "container" / "Dockerfile").read_text()
    patience_s = probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"]
    assert patience_s * 1_000 > 2 * duration_ms(load_settings({}, {}).text("wait"))
    assert container["args"] == ["run"]


def test_selectors_meet_their_pods(objects: dict[str, Any]) -> None:
    labels = objects["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    chosen = [
        objects["StatefulSet"]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert chosen == [labels] * 4
    assert objects["StatefulSet"]["spec"]["serviceName"] == objects["Service"]["metadata"]["name"]
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] < objects["StatefulSet"]["spec"]["replicas"]


def test_the_way_out_is_the_brokers_port_and_names(objects: dict[str, Any]) -> None:
    policy = objects["NetworkPolicy"]["spec"]
    assert (policy["policyTypes"], policy.get("ingress")) == (["Ingress", "Egress"], [])
    # A way without `to` leads anywhere, one without `ports` to every port, an empty selector to all namespaces.
    names, brokers = policy["egress"]
    servers = objects["ConfigMap"]["data"][f"{PREFIX}KAFKA_BOOTSTRAP_SERVERS"].split(",")
    for way, wanted in ((names, {53}), (brokers, {int(server.rpartition(":")[2]) for server in servers})):
        (peer,) = way["to"]
        assert {port["port"] for port in way["ports"]} == wanted
        assert peer["namespaceSelector"]["matchLabels"]
        assert "endPort" not in str(way)
    dns = {"matchExpressions": [{"key": "k8s-app", "operator": "In", "values": ["kube-dns"]}]}
    assert names["to"][0]["podSelector"] == dns  # and none of the labels that kustomize adds to selectors
    (namespace,) = {server.partition(":")[0].split(".")[1] for server in servers}
    assert brokers["to"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": namespace}


def test_the_image_is_this_version(container: Any) -> None:
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert container["image"] == f"streamingcandle:{version}"
