"""A pretended consumer group: cooperative, so a partition is given back before another member gets it."""

from collections.abc import Iterable, Sequence

import msgspec


class Member(msgspec.Struct):
    """One place in the group. Who holds its token is the member: a process that joins anew gets another."""

    token: int
    identity: str
    owned: set[int]
    wanted: set[int]


class Group:
    """Knows members, not their books: who holds a valid token is believed, whatever partition it commits."""

    def __init__(self, partitions: int) -> None:
        """Nobody is in."""
        self._partitions = partitions
        self._members: dict[str, Member] = {}
        self._tokens = 0

    def join(self, identity: str) -> int:
        """A place under this identity; one that is taken goes to the newcomer (a static member come back)."""
        self._tokens += 1
        self._members[identity] = Member(self._tokens, identity, set(), set())
        self.share_out()
        return self._tokens

    def is_member(self, token: int) -> bool:
        """Whether this is a place in the group still."""
        return any(member.token == token for member in self._members.values())

    def is_taken(self, identity: str) -> bool:
        """Whether somebody has this identity."""
        return identity in self._members

    def leave(self, token: int) -> None:
        """Give the place up, or lose it: the session ran out. Nothing where it is lost already."""
        for member in list(self._members.values()):
            if member.token == token:
                del self._members[member.identity]
                self.share_out()

    def share_out(self, order: Sequence[str] = ()) -> None:
        """Say who should have what: as many each, and what one has he keeps; `order` gives all of it anew."""
        names = [name for name in order if name in self._members] or sorted(self._members)
        if not names:
            return
        free = set(range(self._partitions))
        quota = -(-self._partitions // len(names))
        for name in names:
            member = self._members[name]
            kept = set() if order else set(sorted(member.wanted & free)[:quota])
            member.wanted = kept
            free -= kept
        for number in sorted(free):
            least = min(names, key=lambda name: len(self._members[name].wanted))
            self._members[least].wanted.add(number)

    def given_back(self, token: int) -> list[int]:
        """The partitions this member has to give back; they are free when this returns."""
        member = self._member(token)
        leaving = sorted(member.owned - member.wanted)
        member.owned &= member.wanted
        return leaving

    def has_to_give_back(self, token: int) -> list[int]:
        """The partitions that `given_back` would free."""
        member = self._member(token)
        return sorted(member.owned - member.wanted)

    def taken_over(self, token: int) -> set[int]:
        """The partitions this member has now: those it should have and nobody else has any more."""
        member = self._member(token)
        held = {number for other in self._members.values() for number in other.owned}
        member.owned |= member.wanted - held
        return set(member.owned)

    def _member(self, token: int) -> Member:
        return next(member for member in self._members.values() if member.token == token)

    def identities(self) -> Iterable[str]:
        """Who is in, by name."""
        return sorted(self._members)
