"""The store: one connection for all threads, and transactions that carry the requests of many of them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from sqspipes.brokers.sqlite.errors import lacks_room, translated
from sqspipes.brokers.sqlite.room import FullError, Room
from sqspipes.brokers.sqlite.schema import ForeignFileError, check_file, open_database
from sqspipes.brokers.sqlite.transaction import Transaction
from sqspipes.brokers.sqlite.turnstile import Turnstile
from sqspipes.brokers.sqlite.url import SqlitePlace
from sqspipes.errors import BrokerClosedError, BrokerError, BrokerUnavailableError

T = TypeVar("T")

#: The most requests in one transaction; more would only make the others wait longer.
_TOGETHER = 64


class _Request:
    """One caller's work and what came of it; ``gate`` is where the caller sleeps.

    ``adds``: the bytes and the number of the messages that it stores.
    """

    __slots__ = ("adds", "done", "error", "gate", "result", "work")

    def __init__(self, work: Callable[[Transaction], Any], adds: tuple[int, int]) -> None:
        self.work = work
        self.adds = adds
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.gate = threading.Lock()
        self.gate.acquire()

    def run(self, transaction: Transaction) -> None:
        """Do the work. A refusal of the port's is an outcome: the others' work goes on."""
        self.result = self.error = None
        try:
            self.result = self.work(transaction)
        except BrokerError as error:
            self.error = error

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # It is awake.
            self.gate.release()


class Store:
    """Runs the threads' requests on one connection.

    A caller leaves its request in a queue. Whoever finds the connection free leads: it runs all requests that wait,
    in one transaction, and wakes the callers. So the cost of a commit is shared when there are many, and nobody
    waits for a second thread when there is one. Work must change nothing but the database, and refuse (with a
    BrokerError) before it changed anything: an error rolls all of it back, and each runs again by itself.

    A signal's handler may raise between any two lines. So what is under way is written down before it is begun, and
    ``_recover`` ends it from there: the leader's exception is its own, the others' requests wait for the next leader.
    """

    def __init__(
        self, place: SqlitePlace, clock: Callable[[], float], ring: Callable[[set[str]], None]
    ) -> None:
        self.process = os.getpid()
        #: Rises with each transaction of this store.
        self.commits = 0
        self._address = place.address
        self._clock = clock
        self._ring = ring
        self._pending: deque[_Request] = deque()
        # Reentrant, as such a lock knows whose it is: whoever has it can give it back, and nobody else.
        self._free = threading.RLock()
        self._leader = 0  # the thread that has it
        self._batch: list[_Request] = []  # what it took
        self._together: list[_Request] = []  # what is in its transaction
        self._begun = False  # there is a transaction; once there is none any more, it was committed
        self._closed = False
        self._path = place.path
        try:
            check_file(place)
            self._turnstile = Turnstile(None if place.path is None else os.path.realpath(place.path))
        except OSError as error:
            raise translated(error, place.address) from error
        try:
            self._turnstile.enter()
            self._database, self._file = open_database(place)
            self._room = Room(self._database, None if place.path is None else os.path.realpath(place.path))
            self._identity = self._identified()
            self._turnstile.match()
            self._turnstile.leave()
        except BaseException as error:
            if isinstance(error, ForeignFileError):
                self._turnstile.remove()
            self._turnstile.close()
            raise

    def __del__(self) -> None:
        """Give the file back when nobody closed it; a collector can wait for no turn."""
        for part in ("_database", "_turnstile"):
            if hasattr(self, part):
                getattr(self, part).close()

    def write(self, work: Callable[[Transaction], T], adds: tuple[int, int] = (0, 0)) -> T:
        """Return what ``work`` returns, once it is committed; ``adds``: bytes and number of what it stores."""
        self._check_alone()
        request = _Request(work, adds)
        try:
            self._pending.append(request)
            while not request.done:
                if self._free.acquire(blocking=False):
                    if not request.done:
                        self._lead()
                    self._leave()
                else:
                    request.gate.acquire()
        except BaseException:
            request.done = True  # nobody waits for it any more
            self._recover()
            raise
        if request.error is not None:
            raise request.error
        return cast("T", request.result)

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Return what ``work`` returns; it reads by one statement, and waits for no other process."""
        self._check_alone()
        try:
            self._free.acquire()
            self._leader = threading.get_ident()
            self._check_open()
            found = work(self._transaction())
            self._leave()
        except BaseException as error:
            self._recover()
            if isinstance(error, sqlite3.Error):
                raise translated(error, self._address) from error
            raise
        return found

    def close(self) -> None:
        """Close the file; requests that wait are refused."""
        self._closed = True
        if self._leader == threading.get_ident():
            return  # A signal's handler, in the middle of a request: that goes on with the connection.
        with self._free:
            # The last connection writes the log back into the file.
            with contextlib.suppress(BrokerUnavailableError):
                self._turnstile.enter()
            self._database.close()
            self._turnstile.close()
        self._hand_on()

    def hold(self) -> bool:
        """Before a fork: let no transaction be under way, and say whether that succeeded."""
        return self._leader != threading.get_ident() and self._free.acquire(timeout=10)

    def resume(self) -> None:
        """After a fork, in the parent: go on."""
        self._free.release()
        self._hand_on()

    def abandon(self) -> None:
        """After a fork, in the child: drop the connection and the locks, which are the parent's.

        SQLite keeps what it knows of a file's locks for each process, not for each connection: as long as the
        inherited connection is open, a new one would believe in locks that this process does not hold.
        """
        self._closed = True
        self._turnstile.close()
        self._database.close()

    def _lead(self) -> None:
        """Serve the requests that wait now."""
        self._leader = threading.get_ident()
        batch = self._batch
        while self._pending and len(batch) < _TOGETHER:
            if not self._pending[0].done:
                batch.append(self._pending[0])
            self._pending.popleft()
        self._serve(batch)
        self._settle()

    def _serve(self, batch: list[_Request], room: bool = True) -> None:
        """Run requests in one transaction; after an error each by itself, as one of them is to blame."""
        try:
            self._check_open()
            self._commit(batch, restarted=not room)
        except Exception as error:
            self._end()
            left = [request for request in batch if not request.done]
            lacks = room and isinstance(error, sqlite3.Error) and lacks_room(error)
            # Acknowledging goes on also while another program's reader keeps the log from being brought in.
            if lacks and (self._made_room() or isinstance(error, FullError)):
                self._serve(left, room=False)
                return
            if len(left) == 1 or isinstance(error, BrokerError):
                _refuse(left, self._told(error))
                return
            for request in left:
                self._serve([request], room=False)
            if not (isinstance(error, sqlite3.Error) or any(request.error for request in left)):
                raise  # It came from outside: a signal's handler raised it.

    def _commit(self, batch: list[_Request], *, restarted: bool) -> None:
        """Run the batch in one transaction: either all of it is done and safe, or nothing."""
        self._together = batch
        self._turnstile.enter()
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise translated(error, self._address) from error
        self._begun = True
        transaction = self._transaction()
        try:
            # A handler of a signal may have emptied the batch.
            size, messages = sum(each.adds[0] for each in batch), sum(each.adds[1] for each in batch)
            self._room.check(size, messages, restarted=restarted)
            for request in batch:
                request.run(transaction)
            transaction.finish()
            self._database.execute("COMMIT")
        except sqlite3.Error:
            self._begun = False  # SQLite may have rolled back by itself.
            raise
        self._end()
        if transaction.rung:
            self._ring(transaction.rung)

    def _made_room(self) -> bool:
        """Bring the log into the file, if that has the room, so that the log's own room can be used again."""
        try:
            self._turnstile.enter()
            ((busy, _, _),) = self._database.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        except (sqlite3.Error, BrokerUnavailableError):
            return False
        finally:
            self._turnstile.leave()
        return not busy

    def _end(self) -> None:
        """Leave the transaction: what was committed is done, anything else is undone. Twice is no error."""
        if self._begun and not self._database.in_transaction:
            self.commits += 1
            for request in self._together:
                request.done = True
        self._begun = False
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        self._turnstile.leave()

    def _settle(self) -> None:
        """Wake those whose requests were led, or put the requests back in front. Twice is no error."""
        for request in reversed(self._batch):
            if not request.done and request not in self._pending:
                self._pending.appendleft(request)
        for request in self._batch:
            request.wake()
        self._batch = []

    def _leave(self) -> None:
        self._leader = 0
        self._free.release()
        self._hand_on()

    def _hand_on(self) -> None:
        # Requests that came while the connection was taken: one of their callers has to take it.
        if self._pending:
            for request in self._pending.copy():
                if not request.done:
                    request.wake()
                    return

    def _recover(self) -> None:
        """After an exception, wherever it came: end what this thread had under way, and let others go on."""
        try:
            self._let_go()
        except BaseException:
            self._let_go()  # A second signal is no reason to leave the others waiting.
            raise

    def _let_go(self) -> None:
        if self._free.acquire(blocking=False):  # it is this thread's, or free and then nothing is under way
            try:
                if self._batch:
                    self._end()
            finally:
                self._settle()
                self._leader = 0
                with contextlib.suppress(RuntimeError):  # It is not this thread's any more.
                    while True:
                        self._free.release()
        self._hand_on()

    def _transaction(self) -> Transaction:
        return Transaction(self._database, self._file, int(self._clock() * 1000))

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            told = translated(error, self._address)
            told.__cause__ = error
            return told
        return error

    def _check_alone(self) -> None:
        if self._leader == threading.get_ident():
            raise BrokerError(
                f"{self._address} was used by a signal's handler, in the middle of another request"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerClosedError(f"{self._address} was closed")
        if self._path is not None and self._identified() != self._identity:
            raise BrokerError(
                f"{self._address} was deleted, moved or replaced while it was open: what was in it is no longer "
                "reached by this name, and nothing more is done here until the client is made anew"
            )

    def _identified(self) -> tuple[int, int] | None:
        """Say which file the path leads to."""
        if self._path is None:
            return None
        try:
            found = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino


def _refuse(batch: list[_Request], error: Exception) -> None:
    for request in batch:
        request.error = error
        request.done = True
