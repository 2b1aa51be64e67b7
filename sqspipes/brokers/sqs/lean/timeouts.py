"""Timeouts: those that the kernel keeps for a socket, and the sockets for which it does not."""

from __future__ import annotations

import _socket
import os
import socket
import ssl
import struct

#: Seconds and microseconds, as the kernel has them.
_TIMEVAL = struct.Struct("ll")

#: Seconds that a socket is asked to keep, to see whether it does.
_PROBED = 15


def kernel_keeps_timeouts(sock: socket.socket) -> bool:
    """Say whether the kernel ends what takes longer: with Python's own timeout each piece takes two system calls.

    In each the interpreter's lock goes to another thread, and this one has to wait for it. Over TLS there is no other
    way: Python's reads again when the kernel says that the time is over. Nor is there with sockets that never wait in
    the kernel, as those of gevent and eventlet, which wait in a loop of their own.
    """
    if os.name != "posix" or isinstance(sock, ssl.SSLSocket):
        return False
    if type(sock).recv is not _socket.socket.recv or type(sock).send is not _socket.socket.send:
        return False
    try:
        sock.settimeout(None)
        set_kernel_timeouts(sock, _PROBED)
        kept = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.size)
    except OSError:
        return False
    return os.get_blocking(sock.fileno()) and _TIMEVAL.unpack(kept)[0] == int(_PROBED)


def set_kernel_timeouts(sock: socket.socket, seconds: float) -> None:
    """Have the kernel end what takes longer, to send or to receive."""
    whole = int(seconds)
    # Zero would be no timeout at all.
    timeval = _TIMEVAL.pack(whole, max(int((seconds - whole) * 1_000_000), 0 if whole else 1_000))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, timeval)
