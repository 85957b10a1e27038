"""A service that is held between two lines of its log, so that a signal strikes exactly there."""

import ctypes
import fcntl
import os
import select
import threading
import time

from service import Failure, Service, expect

LIBC = ctypes.CDLL(None, use_errno=True)


class OneLinePipe:
    """Has room for one write: whoever writes the next line waits until this one has been read."""

    def __init__(self):
        self.reading, self.writing = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)
        self.copy = os.pipe()

    def look(self, deadline):
        """The line that waits, which stays; empty at the end."""
        expect(select.select([self.reading], [], [], max(0, deadline - time.monotonic()))[0], "the log stands still")
        count = LIBC.tee(self.reading, self.copy[1], 65536, 0)
        if count < 0:
            raise OSError(ctypes.get_errno(), "tee")
        return os.read(self.copy[0], count)

    def take(self):
        return os.read(self.reading, 65536)

    def close(self):
        for descriptor in (self.reading, *self.copy):
            os.close(descriptor)


class StepwiseService(Service):
    """Starts and stands still at the first line with `text`, which it has written but nobody has read, until `go_on`."""

    def __init__(self, text, *args, **kwargs):
        self.pipe = OneLinePipe()
        super().__init__(*args, output=self.pipe.writing, **kwargs)
        os.close(self.pipe.writing)
        self.pump = threading.Thread(target=self.read_rest, daemon=True)
        deadline = time.monotonic() + 20
        while text.encode() not in (line := self.pipe.look(deadline)):
            if not line:
                raise Failure(f"no '{text}' in the log: {self.log()[-1500:]}")
            self.keep(self.pipe.take())

    def keep(self, text):
        self.log_file.write(text)
        self.log_file.flush()

    def go_on(self):
        self.pump.start()

    def read_rest(self):
        while text := self.pipe.take():
            self.keep(text)
        self.pipe.close()
