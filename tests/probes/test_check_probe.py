"""The suite for probes tells a broken probe in words that help its author."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from tightship import Evidence, ObjectProbe, Scene
from tightship.probes.base import target
from tightship.testing import check_probe


class Channel:
    """A resource of another package."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        """Close it."""
        self.closed = True


class ChannelProbe(ObjectProbe):
    """A probe as its author should write it."""

    kind: ClassVar[str] = "channel"
    types: ClassVar[tuple[str, ...]] = (f"{__name__}:Channel",)

    def opened(self, obj: Channel) -> bool:
        """Tell whether it is open."""
        return not obj.closed


class Keeping(ChannelProbe):
    """Keeps alive what it sees."""

    def snapshot(self, scene: Scene) -> Mapping[Any, Any]:
        """List strongly."""
        found = dict(super().snapshot(scene))
        self.seen = [target(h) for h in found.values()]
        self.all = [*getattr(self, "all", ()), *self.seen]
        return found


class Closing(ChannelProbe):
    """Closes what it looks at."""

    def snapshot(self, scene: Scene) -> Mapping[Any, Any]:
        """List, and close."""
        found = super().snapshot(scene)
        if getattr(self, "looked", False):
            for handle in found.values():
                target(handle).close()
        self.looked = bool(found)
        return found


class Numbering(ChannelProbe):
    """Puts an address into the label."""

    def label(self, handle: Any) -> str:
        """Return what changes from run to run."""
        return f"channel at {id(target(handle)):x}"


class Brittle(ChannelProbe):
    """Cannot speak of the dead."""

    def explain(self, handle: Any) -> Evidence:
        """Ask an object that may be gone."""
        return Evidence(f"channel, closed {target(handle).closed}")


class Listing(ChannelProbe):
    """Lists the heap in its tick."""

    def tick(self) -> int:
        """Count the expensive way."""
        return sum(isinstance(o, Channel) for o in gc.get_objects())


class Unseen(ChannelProbe):
    """Sees nothing."""

    types: ClassVar[tuple[str, ...]] = ()


class Deaf(ChannelProbe):
    """Never notices a close."""

    def alive(self, handle: Any) -> bool:
        """Say yes."""
        return True


class Mute(ChannelProbe):
    """Has nothing to say."""

    def explain(self, handle: Any) -> Evidence:
        """Say nothing."""
        return Evidence("")


def test_a_probe_of_another_package_passes() -> None:
    """A type's name and one question are all that a simple probe needs."""
    check_probe(ChannelProbe, Channel, Channel.close)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (Keeping, "channel: the probe keeps what it saw alive: held by list"),
        (Closing, "side effects"),
        (Numbering, "channel: the label must be stable"),
        (Brittle, r"channel: explain\(\) raised AttributeError.* for a dead one"),
        (Listing, r"channel: tick\(\) calls get_objects"),
        (Unseen, "channel: one was opened, but the snapshot has 0 new entries"),
        (Deaf, r"channel: alive\(\) is still true after the close"),
        (Mute, "channel: the evidence of a living one has no subject"),
    ],
)
def test_a_broken_promise_is_named(probe: type[ChannelProbe], message: str) -> None:
    """Each fault has a message of its own."""
    with pytest.raises(AssertionError, match=message):
        check_probe(probe, Channel, Channel.close)


def test_what_is_no_probe_is_told_what_it_lacks() -> None:
    """The names of what is missing are in the message."""
    with pytest.raises(AssertionError, match="has no kind, scope, snapshot, label, explain"):
        check_probe(object, Channel, Channel.close)


def test_nothing_stays_open_after_a_failed_check() -> None:
    """A failed check closes what it opened."""
    made: list[Channel] = []

    def open_one() -> Channel:
        made.append(Channel())
        return made[-1]

    with pytest.raises(AssertionError, match="stable"):
        check_probe(Numbering, open_one, Channel.close)
    assert made
    assert all(c.closed for c in made)
