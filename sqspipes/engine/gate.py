"""Gate: lets calls begin. A suspect runs alone in its process, unless that would keep other calls back for long."""

from __future__ import annotations

from collections.abc import Callable

from sqspipes.calls.held import Held
from sqspipes.messages import queue_names
from sqspipes.support import clocks, lines

logger = lines.logger(__name__)

#: Suspects keep new calls back for so many seconds in a row at most, and in the long run for no more than this part
#: of the time.
MOST_KEPT_SECONDS, MOST_KEPT_PART = 5.0, 0.1

#: When that time is up, the log names the suspects if new calls were kept back for at least so many seconds.
WORTH_SAYING = 1.0

#: What the log says then: of a suspect that waited for other calls to end, and of a suspect that ran alone.
BESIDE = (
    "%s %s was received %d times, so it may be what ends its process: it waited %.1f s for %s %s to end, and runs "
    "beside it now"
)
ALONE = (
    "%s %s was received %d times, so it may be what ends its process: it was alone for %.1f s, and others run "
    "beside it now"
)

Told = tuple[str, tuple[object, ...]]


class Gate:
    """Lets calls of one run begin: many innocent calls at a time, or the call of a single suspect.

    A suspect keeps new calls back while it waits for the calls under way to end, and while it runs. The seconds for
    which new calls may be kept back are the gate's credit. The credit is spent while calls are kept back. It grows by
    a tenth of the time in which no calls are kept back, up to 5 seconds. When the credit is spent, the suspect begins
    beside the calls that still run, and new calls begin beside the suspect.

    ``opened`` is called when a call that was refused may begin now, and when a suspect that was alone has ended.
    ``tick`` is told the time at which ``look`` is to be called. All times are those of ``clock``.
    """

    def __init__(
        self,
        opened: Callable[[], None],
        clock: Callable[[], float] = clocks.monotonic,
        tick: Callable[[float], None] = lambda due: None,
    ) -> None:
        self._opened = opened
        self._clock = clock
        self._tick = tick
        self._inside: dict[Held, int] = {}  # how many calls of each message run, the oldest first
        self._alone: Held | None = None  # the suspect that runs while new calls are kept back
        self._wanting: dict[Held, None] = {}  # the suspects that wait for the calls under way to end
        self._admitted: set[Held] = set()  # the suspects that may begin beside other calls
        self._refused = False  # a call was refused, and no ``leave`` has called ``opened`` since
        self._since: float | None = None  # since when new calls are kept back, None if none are
        # The seconds of credit, and since when the credit has been growing.
        self._credit, self._credited = MOST_KEPT_SECONDS, clock()

    @property
    def shut(self) -> bool:
        """Whether new calls are kept back, because a suspect runs alone or waits to do so."""
        return self._since is not None

    def enter(self, held: Held) -> bool:
        """Let a call begin and return True, or return False. Then ``opened`` is called when to ask again."""
        if self._since is None and not held.suspect:  # nearly always
            self._inside[held] = self._inside.get(held, 0) + 1
            return True
        was_shut = self.shut
        told = self._expire()
        if held.suspect:
            allowed = not self._inside or held in self._admitted
            if not self._inside:
                self._wanting.pop(held, None)
                self._alone = held
                self._keep_back()
            elif not allowed:
                self._wanting[held] = None
                self._keep_back()
                told += self._expire()  # the credit may be spent already: then this suspect begins at once
                allowed = held in self._admitted
            self._admitted.discard(held)
        else:
            allowed = self._since is None
        if allowed:
            self._inside[held] = self._inside.get(held, 0) + 1
        self._refused |= not allowed
        opened = was_shut and not self.shut
        say(told)
        if opened:
            self._opened()
        return allowed

    def leave(self, *helds: Held) -> None:
        """Note that calls of messages have ended."""
        for held in helds:
            left = self._inside.pop(held, 1) - 1
            if left:
                self._inside[held] = left
        if self._since is None and not self._refused:  # nearly always
            return
        was_alone = self._alone is not None and self._alone not in self._inside
        if was_alone:
            self._alone = None
        self._go_on()
        opened = was_alone or (self._refused and (not self._inside or self._since is None))
        if opened:
            self._refused = False
            self._opened()

    def forget(self, held: Held) -> None:
        """Note that a message is not held any more; if it was a suspect that waited, others may go on."""
        self._admitted.discard(held)
        wanted = held in self._wanting
        self._wanting.pop(held, None)
        self._go_on()
        opened = wanted and (not self._inside or not self._wanting)
        if opened:
            self._opened()

    def look(self) -> float | None:
        """Keep no calls back any more if the credit is spent; return when to look again, None if not."""
        was_shut = self.shut
        told = self._expire()
        opened = was_shut and not self.shut
        due = None if self._since is None else self._since + self._credit
        say(told)
        if opened:
            self._opened()
        return due

    def _keep_back(self) -> None:
        if self._since is None:
            now = self._clock()
            self._credit = min(MOST_KEPT_SECONDS, self._credit + (now - self._credited) * MOST_KEPT_PART)
            self._since = now
            self._tick(now + self._credit)

    def _go_on(self) -> None:
        """Keep no calls back any more if no suspect runs alone and none waits."""
        if self._since is not None and self._alone is None and not self._wanting:
            now = self._clock()
            self._credit = max(0.0, self._credit - (now - self._since))
            self._since, self._credited = None, now

    def _expire(self) -> list[Told]:
        """Keep no calls back any more if the credit is spent; return what the log is to say."""
        if self._since is None or self._clock() < self._since + self._credit:
            return []
        kept = self._clock() - self._since
        beside = next(iter(self._inside), None)
        told: list[Told] = []
        if kept >= WORTH_SAYING:
            told += [
                (BESIDE, _shown(held, kept) + _shown(beside)) for held in self._wanting if beside is not None
            ]
            told += [(ALONE, _shown(self._alone, kept))] if self._alone is not None else []
        self._admitted.update(self._wanting)
        self._wanting.clear()
        self._alone = None
        self._go_on()
        return told


def say(told: list[Told]) -> None:
    """Log what the gate has to say of suspects, as WARNINGs."""
    for text, about in told:
        logger.warning(text, *about)


def _shown(held: Held, *seconds: float) -> tuple[object, ...]:
    """Return what the log shows of a message: its task and id; with ``seconds`` also its receives and these."""
    name = queue_names.parse(held.delivery.queue)
    shown = (held.delivery.queue if name is None else name.task, held.message.id)
    return (*shown, held.delivery.receives, *seconds) if seconds else shown
