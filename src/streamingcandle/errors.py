"""What we raise when the user or the world is at fault. Our own bugs are assertions and ValueErrors.

    StreamingCandleError            one line for the operator: what, where, what to do
    ├── SettingsError     exit 2    a setting, a flag, a table of sessions is wrong
    ├── OutsideError      exit 3    the broker, the disk, the network failed
    │   ├── MissingTopicError  exit 2   a topic is not there
    │   └── RefusedError       exit 3   a broker does not let us in, or does not grant us something
    ├── OwnedError        exit 4    another process has this instance
    └── CheckError        exit 1    a check found something

Bad input records are no errors: they are values (specification §1.1) and end in the dead-letter topic.
"""


class StreamingCandleError(Exception):
    """Base of all; `str(error)` is the one line that the operator reads."""

    exit_code = 1


class CheckError(StreamingCandleError):
    """A check ran to its end and found something."""

    exit_code = 1


class SettingsError(StreamingCandleError):
    """A setting, flag or file of ours cannot be used as it is."""

    exit_code = 2


class OutsideError(StreamingCandleError):
    """The world outside failed: broker, topic, rights, disk."""

    exit_code = 3


class MissingTopicError(OutsideError):
    """A topic is not there, or has another name."""

    exit_code = 2


class RefusedError(OutsideError):
    """A broker refuses us: credentials, certificates, rights. Waiting mends nothing."""

    exit_code = 3


class OwnedError(StreamingCandleError):
    """Another process has this instance, or took our place in the group for good."""

    exit_code = 4
