"""The store: one connection for all threads, and transactions that carry the requests of many of them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from sqspipes.brokers._sqlite_errors import translated
from sqspipes.brokers._sqlite_schema import open_database
from sqspipes.brokers._sqlite_transaction import Transaction
from sqspipes.brokers._sqlite_turnstile import Turnstile
from sqspipes.brokers._sqlite_url import Place
from sqspipes.errors import BrokerClosedError, BrokerError

T = TypeVar("T")

#: The most requests in one transaction; more would only make the others wait longer.
_TOGETHER = 64


class _Request:
    """One caller's work and what came of it; ``gate`` is where the caller sleeps."""

    __slots__ = ("done", "error", "gate", "result", "work")

    def __init__(self, work: Callable[[Transaction], Any]) -> None:
        self.work = work
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

    A caller leaves its request in a queue. Whoever finds the connection free runs all requests that wait, in
    one transaction, and wakes the callers. So the cost of a commit is shared when there are many, and nobody
    waits for a second thread when there is one. Work must change nothing but the database, and refuse (with a
    BrokerError) before it changed anything: an error rolls all of it back, and each runs again by itself.
    """

    def __init__(self, place: Place, clock: Callable[[], float], ring: Callable[[set[str]], None]) -> None:
        self.process = os.getpid()
        #: Rises with each transaction of this store.
        self.commits = 0
        self._address = place.address
        self._clock = clock
        self._ring = ring
        self._pending: deque[_Request] = deque()
        self._free = threading.Lock()
        self._closed = False
        try:
            self._turnstile = Turnstile(None if place.path is None else os.path.realpath(place.path))
        except OSError as error:
            raise BrokerError(f"{place.address}: {error}") from error
        try:
            with self._turnstile.passed():
                self._database, self._file = open_database(place)
        except BaseException:
            self._turnstile.close()
            raise

    def __del__(self) -> None:
        """Give the file back when nobody closed it; a collector can wait for no turn."""
        if not getattr(self, "_closed", True) and hasattr(self, "_database"):
            self._closed = True
            self._database.close()
            self._turnstile.close()

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Return what ``work`` returns, once it is committed."""
        request = _Request(work)
        self._pending.append(request)
        try:
            while not request.done:
                if self._free.acquire(blocking=False):
                    try:
                        if not request.done:
                            self._lead()
                    finally:
                        self._leave()
                else:
                    request.gate.acquire()
        except BaseException:
            if request in self._pending:
                self._pending.remove(request)
            raise
        if request.error is not None:
            raise request.error
        return cast("T", request.result)

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Return what ``work`` returns; it reads by one statement, and waits for no other process."""
        self._free.acquire()
        try:
            self._check_open()
            return work(self._transaction())
        except sqlite3.Error as error:
            raise translated(error, self._address) from error
        finally:
            self._leave()

    def close(self) -> None:
        """Close the file; requests that wait are refused."""
        with self._free:
            if not self._closed:
                self._closed = True
                # The last connection writes the log back into the file.
                with self._turnstile.passed():
                    self._database.close()
                self._turnstile.close()
        self._hand_on()

    def hold(self) -> bool:
        """Before a fork: let no transaction be under way, and say whether that succeeded."""
        return self._free.acquire(timeout=10)

    def resume(self) -> None:
        """After a fork, in the parent: go on."""
        self._leave()

    def abandon(self) -> None:
        """After a fork, in the child: drop the connection and the locks, which are the parent's.

        SQLite keeps what it knows of a file's locks for each process, not for each connection: as long as the
        inherited connection is open, a new one would believe in locks that this process does not hold.
        """
        if not self._closed:
            self._closed = True
            self._turnstile.close()
            self._database.close()

    def _lead(self) -> None:
        """Serve the requests that wait now."""
        batch: list[_Request] = []
        while self._pending and len(batch) < _TOGETHER:
            batch.append(self._pending.popleft())
        try:
            self._serve(batch)
        except BaseException:
            self._pending.extendleft(request for request in reversed(batch) if not request.done)
            raise
        finally:
            for request in batch:
                request.wake()

    def _serve(self, batch: list[_Request]) -> None:
        try:
            self._check_open()
            self._commit(batch)
        except BrokerError as error:
            _refuse(batch, error)
        except Exception as error:
            if len(batch) == 1:
                _refuse(batch, self._told(error))
                return
            for request in batch:  # One of them is to blame, the others succeed.
                self._serve([request])

    def _commit(self, batch: list[_Request]) -> None:
        """Run the batch in one transaction: either all of it is done and safe, or nothing."""
        with self._turnstile.passed():
            try:
                self._database.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise translated(error, self._address) from error
            transaction = self._transaction()
            try:
                for request in batch:
                    request.run(transaction)
                transaction.finish()
                self._database.execute("COMMIT")
            except sqlite3.Error:
                self._roll_back()
                raise
            except BaseException:
                # A signal's exception also comes between the commit and the next line.
                if not self._roll_back():
                    _mark_done(batch)
                raise
            _mark_done(batch)
        self.commits += 1
        if transaction.rung:
            self._ring(transaction.rung)

    def _transaction(self) -> Transaction:
        return Transaction(self._database, self._file, int(self._clock() * 1000))

    def _roll_back(self) -> bool:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
            return True
        return False

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            told = translated(error, self._address)
            told.__cause__ = error
            return told
        return error

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerClosedError(f"{self._address} was closed")

    def _leave(self) -> None:
        self._free.release()
        self._hand_on()

    def _hand_on(self) -> None:
        # Requests that came while the connection was taken: one of their callers has to take it.
        with contextlib.suppress(IndexError):
            self._pending[0].wake()


def _refuse(batch: list[_Request], error: Exception) -> None:
    for request in batch:
        request.error = error
        request.done = True


def _mark_done(batch: list[_Request]) -> None:
    for request in batch:
        request.done = True
