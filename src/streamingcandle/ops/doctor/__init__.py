"""`doctor`: everything that `run` needs, looked at; one file a group of checks.

`kafka/reach.py` and `kafka/survey.py` ask the brokers, `ask_…` in here the host; `judge_…` are functions of the
answers. Each question has a limit, and where nobody answers the checks behind it are told of as not made. Nothing is
changed but what the text of `kafka/survey.py` names, and a file in the state directory that is gone at once.
"""

from pathlib import Path

from streamingcandle.aside import begin
from streamingcandle.interfaces import Clock
from streamingcandle.kafka.client import KafkaSettings
from streamingcandle.ops.doctor.cluster import check_cluster
from streamingcandle.ops.doctor.finding import Deployment, Finding, fault, ok, warning
from streamingcandle.ops.doctor.host import ask_memory, ask_state, judge_disk, judge_memory, judge_state
from streamingcandle.ops.doctor.store import check_store

HOST_S = 5.0
"""A disk that takes longer hangs."""


def examine(
    deployment: Deployment, settings: KafkaSettings | None, clock: Clock, *, state_dir: Path, store: Path
) -> list[Finding]:
    """All checks but that of the settings. `settings`: None for the embedded log."""
    asked = [
        ("state directory", begin(lambda: _check_disk(deployment, state_dir))),
        ("memory", begin(lambda: judge_memory(ask_memory()))),
        ("store", begin(lambda: check_store(store, deployment, is_log=settings is None))),
    ]
    found = [] if settings is None else check_cluster(settings, deployment, clock)
    for check, future in asked:
        try:
            found += future.result(HOST_S)
        except TimeoutError:
            found.append(fault(check, f"no answer within {HOST_S:.0f} s: the disk hangs", "look at it: `dmesg`"))
        except OSError as error:
            do = "run doctor as the user that the service runs as"
            found.append(fault(check, f"{error.filename}: {error.strerror}", do))
    return found


def _check_disk(deployment: Deployment, state_dir: Path) -> list[Finding]:
    answer, live = ask_state(state_dir, deployment.application_id)
    return [judge_state(state_dir, answer, live), judge_disk(answer)]


def check_settings(*, profile: str, warnings: tuple[str, ...], is_embedded: bool) -> list[Finding]:
    """Those that could be read."""
    # Those of files that everybody may read end in what to type.
    found = [warning("settings", text, "" if "; type: " in text else "correct or remove it") for text in warnings]
    if is_embedded and profile in ("staging", "production"):
        what = f"profile {profile} without brokers: ticks and candles are in a file of this host"
        found.append(warning("settings", what, "set STREAMINGCANDLE_KAFKA_BOOTSTRAP_SERVERS"))
    return found or [ok("settings", f"profile {profile}")]
