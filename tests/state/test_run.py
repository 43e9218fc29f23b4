"""`run` on the embedded log has a place among the processes of the host, as on Kafka."""

import shutil
import subprocess
from pathlib import Path

from program import PROGRAM, environment, run, run_well
from streamingcandle.state.directory import is_owned
from streamingcandle.state.owner import read_owner


def test_the_embedded_log_has_an_instance_and_one_process(tmp_path: Path) -> None:
    variables = environment("t", tmp_path, None)
    run_well(variables, "topics", "ensure")
    folder = tmp_path / "state" / "t-app" / "instance-0"
    with subprocess.Popen([PROGRAM, "run"], env=variables, stderr=subprocess.DEVNULL) as process:
        while (owner := read_owner(folder)) is None:
            assert process.poll() is None
        assert owner.pid == process.pid
        refused = run(variables, "run")
        assert refused.returncode == 4
        assert f"pid {process.pid}" in refused.stderr.decode()
        shutil.rmtree(tmp_path / "state")
        while not is_owned(folder):
            assert process.poll() is None
        process.terminate()
        assert process.wait(5) == 0
    assert not is_owned(folder)
    assert not folder.with_name("instance-1").exists()
