"""A real Kafka broker for the tests: one JVM from the jars of `fetch.sh`, on the loopback alone, without Docker.

It is a single KRaft node, broker and controller in one process, with three listeners on 127.0.0.1: CLIENT is the one
under test; INSIDE is the broker's own (its coordinator writes transaction markers through it) and stays reachable when
a proxy in front of CLIENT is cut; CONTROLLER is the quorum of one.

Ports. Each is found by binding port 0, and the socket stays bound, not listening, as long as the `Broker` lives. The
JVM can listen beside it (both set SO_REUSEADDR), but nobody else is given the port while the broker is down, neither a
server that binds port 0 nor a client that reconnects: such a client may be handed the very port it dials, would then
talk to itself and keep the broker out.

Life. The broker is ended by pid by the `Broker` that started it. It has its own session, so Ctrl-C reaches pytest and
not the JVM, and pytest takes it down in order. When the test process dies without a word (SIGKILL, `os._exit` of
pytest-timeout) no atexit runs: the kernel ends the JVM then (PR_SET_PDEATHSIG, Linux only). A small launcher sets that
and becomes the JVM, rather than a `preexec_fn`: that one forks the whole process, threads of librdkafka included, which
Python 3.12 warns about, and warnings are errors here. The kernel takes the death of the *thread* that forked for the
parent's, so one thread that lives as long as the process does all the starting: a test may bounce the broker from a
thread that ends.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Final, NoReturn, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from broker.jars import wrong_jars

HERE: Final = Path(__file__).resolve().parent
LIBS: Final = HERE.parents[1] / ".cache" / "kafka" / "libs"

FORMAT_LIMIT_S: Final = 30.0  # takes 0.7 s on two idle cores
START_LIMIT_S: Final = 60.0  # takes 1.8 s on two idle cores
STOP_LIMIT_S: Final = 20.0  # takes 0.3 s on two idle cores
PROBE_LIMIT_S: Final = 1.0  # one question of the readiness probe: short, so that a JVM that died is noticed
LOG_TAIL_BYTES: Final = 4_000  # of the broker's log in an error: the last thirty lines or so

CLUSTER_ID: Final = "c3RyZWFtaW5nY2FuZGxlcw"  # any 16 bytes in base64; fixed, since no two brokers here ever meet
NODE_ID: Final = 1
MESSAGE_BYTES_MAX: Final = 12 * 1024 * 1024

# Measured (median of 3, start to ready): 2.5 s with the JVM's own choice, 1.8 s with these. C1 alone costs a long load
# test throughput: give "-XX:TieredStopAtLevel=4" there.
JVM_FLAGS: Final = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",  # a broker that limps on makes a test fail somewhere else
    "-XX:-UsePerfData",  # a killed JVM would leave its file in /tmp
)

PROPERTIES: Final = MappingProxyType(
    {
        "process.roles": "broker,controller",
        "node.id": str(NODE_ID),
        "inter.broker.listener.name": "INSIDE",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "auto.create.topics.enable": "false",
        # Event times in tests are years old; by time, all of it would be deleted at once.
        "log.retention.ms": "-1",
        "message.max.bytes": str(MESSAGE_BYTES_MAX),
        "replica.fetch.max.bytes": str(MESSAGE_BYTES_MAX),
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        # Ten seconds by default: how late after its timeout a dead producer's transaction is aborted.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # The same for group.protocol=consumer (KIP-848), where the broker says how often a member speaks.
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.min.heartbeat.interval.ms": "100",
        "group.consumer.heartbeat.interval.ms": "500",
        # After a kill the controller takes the broker back only when its former life's session is over: nine seconds
        # by default. Four are forty missed heartbeats: a busy machine does not lose its broker in between.
        "broker.heartbeat.interval.ms": "100",
        "broker.session.timeout.ms": "4000",
        # The cleaner's default buffer, 128 MB, is a quarter of the heap; 4 MB hold some 170,000 keys.
        "log.cleaner.dedupe.buffer.size": str(4 * 1024 * 1024),
        "log.cleaner.backoff.ms": "1000",
    }
)

# Asks the kernel for SIGKILL when the thread that started it ends (1 is PR_SET_PDEATHSIG), makes sure that the process
# has not died before that, and becomes the command: same pid.
_LAUNCHER: Final = """
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("broker launcher: whoever started it is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

_STARTER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="broker-starter")


class BrokerError(RuntimeError):
    """The broker could not be had. Says what, where, what to do, and how the broker's log ends if there is one."""


class Broker:
    """One broker process, its directory and its ports. Not started by the constructor.

    May be stopped or killed and started again any number of times: ports, configuration and data stay. It may be used
    from any thread, by one at a time.

    `directory` is created, and is the broker's alone: `data`, `server.properties`, `broker.log`, `tmp`. `properties` go
    over `PROPERTIES`, `jvm_flags` after `JVM_FLAGS` (the JVM takes the last word). `advertised_port` is where clients
    are sent after their first question, for a proxy in front of `port`; by default it is `port`.
    `listeners`: further ones and their protocols; `ports` has where they listen.

    Raises BrokerError where jars are missing or not those of jars.sha256, or there is no java.
    """

    def __init__(
        self,
        directory: Path,
        *,
        properties: Mapping[str, str] = MappingProxyType({}),
        advertised_port: int | None = None,
        jvm_flags: Sequence[str] = (),
        listeners: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Reserve the ports and write the configuration."""
        self._java = _java()
        self._jvm_flags = tuple(jvm_flags)
        self._process: subprocess.Popen[bytes] | None = None

        reservations = [_reserve_port() for _ in range(3 + len(listeners))]
        weakref.finalize(self, _close, reservations)
        self.port, self._inside_port, controller_port, *others = (one.getsockname()[1] for one in reservations)
        self.ports = dict(zip(listeners, others, strict=True))
        more = "".join(f",{name}://127.0.0.1:{port}" for name, port in self.ports.items())
        protocols = "".join(f",{name}:{protocol}" for name, protocol in listeners.items())

        self.directory = directory.resolve()
        self.log = self.directory / "broker.log"
        (self.directory / "tmp").mkdir(parents=True, exist_ok=True)
        self._settings = self.directory / "server.properties"
        own = {
            "listeners": f"CLIENT://127.0.0.1:{self.port},INSIDE://127.0.0.1:{self._inside_port},"
            f"CONTROLLER://127.0.0.1:{controller_port}{more}",
            "listener.security.protocol.map": PROPERTIES["listener.security.protocol.map"] + protocols,
            "advertised.listeners": f"CLIENT://127.0.0.1:{advertised_port or self.port},"
            f"INSIDE://127.0.0.1:{self._inside_port}{more}",
            "controller.quorum.voters": f"{NODE_ID}@127.0.0.1:{controller_port}",
            "log.dirs": str(self.directory / "data"),
        }
        lines = [f"{name}={value}\n" for name, value in {**PROPERTIES, **own, **properties}.items()]
        self._settings.write_text("".join(lines), encoding="utf-8")

    @property
    def bootstrap(self) -> str:
        """Where clients begin, "127.0.0.1:PORT": the broker itself, also when it advertises a proxy's port."""
        return f"127.0.0.1:{self.port}"

    @property
    def inside_bootstrap(self) -> str:
        """The listener that no proxy stands before: for a test that looks on while its client is cut off."""
        return f"127.0.0.1:{self._inside_port}"

    @property
    def running(self) -> bool:
        """Whether the process lives, ready or not, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return when it answers clients and leads every partition it has.

        Raises BrokerError when that has not happened after START_LIMIT_S, or the process ends before; nothing is left
        running then. ValueError: it runs already.
        """
        if self.running:
            message = f"the broker on {self.bootstrap} runs already"
            raise ValueError(message)
        deadline_s = time.monotonic() + START_LIMIT_S
        if not (self.directory / "data" / "meta.properties").exists():  # the last file that formatting writes
            self._format()
        with self.log.open("ab") as log:
            self._process = spawn(self._command("kafka.Kafka", str(self._settings)), cwd=self.directory, output=log)
        try:
            self._await_port(self._process, deadline_s)
            self._await_answer(self._process, deadline_s)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it as an operator would (SIGTERM), thawed first; by SIGKILL where STOP_LIMIT_S do not suffice.

        Returns when the process is gone. Does nothing when it does not run.
        """
        if self._process is None:
            return
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL, frozen or not; returns when the process is gone. Does nothing when it does not run.

        What clients were promised is in the machine's page cache and outlives the process.
        """
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered. Returns when every thread stands.

        Thawed after more than `broker.session.timeout.ms` (2 s), the broker is fenced by its own controller for a
        moment: clients see partitions without a leader and retry. ValueError: it does not run.
        """
        process = self._running_process()
        process.send_signal(signal.SIGSTOP)
        # WNOWAIT leaves what is found to `Popen`, which is to learn of an end by itself.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """SIGCONT: it goes on where `freeze` stopped it. ValueError: it does not run."""
        self._running_process().send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()

    def _running_process(self) -> subprocess.Popen[bytes]:
        if self._process is None or not self.running:
            message = f"the broker on {self.bootstrap} does not run"
            raise ValueError(message)
        return self._process

    def _command(self, main_class: str, *arguments: str) -> list[str]:
        return [
            self._java,
            *JVM_FLAGS,
            *self._jvm_flags,
            # The compressors unpack their libraries there; a killed JVM would leave them in /tmp.
            f"-Djava.io.tmpdir={self.directory / 'tmp'}",
            f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}",
            "-cp",
            f"{LIBS}/*",
            main_class,
            *arguments,
        ]

    def _format(self) -> None:
        # Kafka's own tool: the features it writes (transaction.version, group.version) are missing from a directory
        # that has only a hand-written meta.properties.
        tool = self._command(
            "kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config", str(self._settings)
        )
        with self.log.open("ab") as log:
            process = spawn(tool, cwd=self.directory, output=log)
        try:
            code = process.wait(FORMAT_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self._fail(f"formatting took more than {FORMAT_LIMIT_S:.0f} s")
        if code != 0:
            self._fail(f"formatting failed with exit code {code}")

    def _await_port(self, process: subprocess.Popen[bytes], deadline_s: float) -> None:
        """Return when the client port is listened on: cheap to ask often, where a client would back off."""
        while time.monotonic() < deadline_s:
            try:
                socket.create_connection(("127.0.0.1", self.port), PROBE_LIMIT_S).close()
            except OSError:
                try:
                    code = process.wait(0.02)
                except subprocess.TimeoutExpired:
                    continue
                self._fail(f"ended with exit code {code} before it listened")
            else:
                return
        self._fail(f"did not listen after {START_LIMIT_S:.0f} s")

    def _await_answer(self, process: subprocess.Popen[bytes], deadline_s: float) -> None:
        """Return when the broker is unfenced and each partition has its leader.

        After a start that is the case at once for a new directory, and some milliseconds later for one with topics.
        """
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        seen = "no answer"
        while time.monotonic() < deadline_s:
            code = process.poll()
            if code is not None:
                self._fail(f"ended with exit code {code} before it answered")
            try:
                found = client.list_topics(timeout=PROBE_LIMIT_S)
            except KafkaException as error:
                seen = str(error)
                continue
            leaders = [one.leader for topic in found.topics.values() for one in topic.partitions.values()]
            if found.brokers and all(leader == NODE_ID for leader in leaders):
                return
            seen = f"{len(found.brokers)} brokers, {leaders.count(-1)} partitions without a leader"
        self._fail(f"was not ready after {START_LIMIT_S:.0f} s ({seen})")

    def _fail(self, what: str) -> NoReturn:
        tail = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        message = f"broker on {self.bootstrap}: {what}. The end of {self.log}:\n{tail}"
        raise BrokerError(message) from None


def spawn(command: Iterable[str], *, cwd: Path, output: IO[bytes] | None) -> subprocess.Popen[bytes]:
    """Start a command, its first word a full path, that the kernel kills (Linux) when this process ends, however.

    Both its outputs go to `output`, or where ours go if that is None. May be called from a thread that ends.
    """
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
    return _STARTER.submit(
        subprocess.Popen,
        launcher,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
    ).result()


def _java() -> str:
    """Path of java. BrokerError, in one line, if it is missing or a jar is not the one of jars.sha256."""
    java = shutil.which("java")
    if java is None:
        message = "no java for the test broker: install Java 17 or newer, then run tests/broker/fetch.sh"
        raise BrokerError(message)
    wrong = wrong_jars(LIBS)
    if wrong:
        message = f"the test broker's jars in {LIBS}: {', '.join(wrong)}: run tests/broker/fetch.sh"
        raise BrokerError(message)
    return java


def _reserve_port() -> socket.socket:
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("127.0.0.1", 0))
    return reservation


def _close(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        one.close()
