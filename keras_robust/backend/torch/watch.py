"""PyTorch: what ends a process of a training when another one has died, instead of letting it wait for ever."""

import os
import secrets
import socket
import struct
import sys
import threading
from contextlib import suppress

from torch import distributed

from keras_robust.backend.torch.processes import exchanged

ORDERLY = -1  # the word of a process that ends because the training has
STATUS = 1
WORD = struct.Struct(">q")
GREETING = struct.Struct(">qq")
CONNECT_SECONDS = 120.0
# A connection to a host that has gone without a word breaks after idle + count * interval seconds.
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 3}


class Watch:
    """Connections of the first process to all others, on which each waits for a word of the other one.

    It comes at the end of the training; a connection that breaks before is a process that has died. The first process
    then says to the others which. A message of the training that waits for a dead process would fail at once with gloo,
    but with NCCL only when its time is up.

    Args:
        host: of the first process.
    """

    def __init__(self, host: str) -> None:
        self.index, count = distributed.get_rank(), distributed.get_world_size()
        self._ending = threading.Lock()
        secret = int(exchanged(secrets.randbits(50))[0])
        if self.index == 0:
            self.connections = _accepted(secret, count)
        else:
            self.connections = {0: _connected(host, int(exchanged(0)[0]), secret, self.index)}
        self._threads = [threading.Thread(target=self._wait, args=(peer,), daemon=True) for peer in self.connections]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Says to the others that the training is at its end; all processes call it at the same point."""
        for connection in self.connections.values():
            connection.sendall(WORD.pack(ORDERLY))
        for thread in self._threads:
            thread.join()
        for connection in self.connections.values():
            connection.close()

    def _wait(self, peer: int) -> None:
        try:
            gone = _word(self.connections[peer], WORD)[0]
        except OSError:
            gone = peer
        if gone != ORDERLY:
            self._end(gone)

    def _end(self, gone: int) -> None:
        self._ending.acquire()  # and kept: the first one ends the program
        print(
            f"keras_robust: process {gone} of the training has died, and process {self.index} ends with it. The same "
            "command goes on from the last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        for connection in self.connections.values():
            with suppress(OSError):  # has died, too
                connection.sendall(WORD.pack(gone))
        sys.stdout.flush()
        os._exit(STATUS)


def _accepted(secret: int, count: int) -> dict[int, socket.socket]:
    """Connections from all other processes, by their index."""
    connections: dict[int, socket.socket] = {}
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    with socket.create_server(("", 0), family=family, backlog=count, dualstack_ipv6=both) as server:
        server.settimeout(CONNECT_SECONDS)
        exchanged(server.getsockname()[1])
        while len(connections) < count - 1:
            connection, _ = server.accept()
            connection.settimeout(CONNECT_SECONDS)
            try:
                said, index = _word(connection, GREETING)
            except OSError:
                continue
            if said == secret:  # and no stranger's
                connections[index] = _kept(connection)
    return connections


def _connected(host: str, port: int, secret: int, index: int) -> socket.socket:
    connection = socket.create_connection((host, port), CONNECT_SECONDS)
    connection.sendall(GREETING.pack(secret, index))
    return _kept(connection)


def _kept(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _word(connection: socket.socket, form: struct.Struct) -> tuple[int, ...]:
    """What the other end says next; an OSError where it ends instead."""
    content = b""
    while len(content) < form.size:
        part = connection.recv(form.size - len(content))
        if not part:
            raise ConnectionError("the connection has ended")
        content += part
    return form.unpack(content)
