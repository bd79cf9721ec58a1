"""Who accepts where: every socket has somebody, as long as anybody serves."""

from collections.abc import Iterable, Sequence

from fastgate.supervisor.member import Member
from fastgate.supervisor.sockets import Place


def shares(able: Sequence[Member], places: Iterable[Place]) -> dict[Member, frozenset[int]]:
    """For each worker that can be counted on, the numbers of its sockets that it accepts from.

    The socket at an index is that of the worker with this number; one that nobody is there for gets a substitute.
    """
    wanted: dict[Member, set[int]] = {member: set() for member in able}
    for place in places:
        count = len(place.sockets)
        for index, sock in enumerate(place.sockets):
            with_it = [member for member in able if sock in member.sockets]
            meant = [member for member in with_it if (member.number - 1) % count == index]
            for member in meant or with_it[index % max(1, len(with_it)) :][:1]:
                wanted[member].add(member.sockets.index(sock))
    return {member: frozenset(numbers) for member, numbers in wanted.items()}
