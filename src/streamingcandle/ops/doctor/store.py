"""The store: a SQLite file, and without brokers the log itself."""

from pathlib import Path

from streamingcandle.embedded.store import EmbeddedStore
from streamingcandle.errors import OutsideError
from streamingcandle.interfaces import Committed
from streamingcandle.ops.doctor.finding import Deployment, Finding, fault, ok
from streamingcandle.ops.doctor.group import judge_commits
from streamingcandle.ops.doctor.host import ask_folder

CHECK = "store"


def check_store(path: Path, deployment: Deployment, *, is_log: bool) -> list[Finding]:
    """That it opens; one that is not there yet is not made. `is_log`: the group's commits lie in it."""
    if not path.exists():
        folder = ask_folder(path.parent)
        if folder.errno:
            do = f"give {path.parent} to this user, or set STREAMINGCANDLE_DATA_DIR to a writable folder"
            return [fault(CHECK, f"{folder.path}: {folder.reason}", do)]
        return [ok(CHECK, f"{path}: not there yet, {'will be made' if is_log else 'and not needed with brokers'}")]
    try:
        store = EmbeddedStore(path)
        try:
            topics = dict(store.topics())
            commits = store.committed(deployment.application_id, deployment.ticks) if is_log else {}
        finally:
            store.close()
    except OutsideError as error:
        what, _, do = str(error).rpartition("; ")
        return [fault(CHECK, what or do, do if what else "look at the file")]
    if is_log and deployment.ticks not in topics:
        do = "correct the name, or make it with `streamingcandle topics ensure`, `ingest` or `simulate`"
        return [fault(CHECK, f"{path}: no topic {deployment.ticks}, {len(topics)} others", do)]
    found = judge_commits(
        deployment,
        {number: Committed(*committed) for number, committed in commits.items()},
        topics.get(deployment.ticks, 1),
    )
    return [ok(CHECK, f"{path}: opens, {len(topics)} topics"), *found]
