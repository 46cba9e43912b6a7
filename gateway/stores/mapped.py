"""A file in memory: its blocks set aside, its pages made writable and synced ahead of the writer.

The calls that may wait for the disk let other threads run meanwhile; those of `mmap` itself do not.
"""

import ctypes
import errno
import mmap
import os
import sys
from pathlib import Path
from typing import Final

PAGE: Final = mmap.PAGESIZE

_MS_SYNC: Final = 4  # Linux; elsewhere `mmap.flush` is used
_MADV_POPULATE_WRITE: Final = 23  # Linux 5.14
_MADV_DONTNEED: Final = 4
_ZEROS: Final = bytes(1 << 16)
_TOUCHED_BYTES: Final = 1 << 17  # at once: 0.1 to 0.4 ms
_ZERO_DEVICE: Final = Path("/dev/zero")
_ON_LINUX: Final = sys.platform == "linux"

_C: Final = ctypes.CDLL(None, use_errno=True)
_C.msync.argtypes = _C.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class MappedFile:
    """A new file of `length` bytes, none of which has a block on disk yet.

    Offsets that are given must be whole pages. Every call raises OSError.
    """

    def __init__(self, path: Path, length: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(self._fd, length)
            self.memory = mmap.mmap(self._fd, length)
            # Else the first touch of a page fills megabytes of them with zeros, as if read ahead.
            self.memory.madvise(mmap.MADV_RANDOM)
        except BaseException:
            os.close(self._fd)
            path.unlink()
            raise
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def allocate(self, start: int, end: int) -> None:
        """Blocks and writable pages for this part, in which nothing may have been written before.

        Without them a store would kill the process on a full disk; and blocks alone are not enough,
        as a file system may want another one to note that a block is in use. So each page is
        touched here, where a failure is an error.
        """
        if _ON_LINUX:
            os.posix_fallocate(self._fd, start, end - start)
        else:
            for at in range(start, end, len(_ZEROS)):
                os.pwrite(self._fd, _ZEROS[: end - at], at)
        with _ZERO_DEVICE.open("rb", buffering=0) as zeros, memoryview(self.memory) as memory:
            while start < end:
                start += zeros.readinto(memory[start : min(start + _TOUCHED_BYTES, end)])
                os.sched_yield()  # 8 MiB are up to 25 ms on a core that the loop may be waiting for

    def make_writable(self, start: int, end: int) -> None:
        """The first store into a page after it was written back waits for the file system's
        journal. This has that over before the writer comes.
        """
        if not _ON_LINUX or start >= end:
            return
        try:
            _call(_C.madvise(self._address + start, end - start, _MADV_POPULATE_WRITE))
        except OSError as fault:
            if fault.errno != errno.EINVAL:  # an older kernel: then the writer waits now and then
                raise

    def sync(self, start: int, end: int) -> None:
        """On disk when the call returns; no other part is waited for."""
        if _ON_LINUX:
            _call(_C.msync(self._address + start, end - start, _MS_SYNC))
            return
        self.memory.flush(start, end - start)
        os.fsync(self._fd)

    def forget(self, start: int, end: int) -> None:
        """These pages no longer count as this process's memory. The file keeps them."""
        if _ON_LINUX and start < end:
            _call(_C.madvise(self._address + start, end - start, _MADV_DONTNEED))

    def close(self, length: int) -> None:
        """Cut the file to `length` and let it go. A later store into `memory` is refused."""
        try:
            self.forget(0, len(self.memory))  # what is left for `mmap` to do is short
            self.memory.close()
            os.ftruncate(self._fd, length)
        finally:
            os.close(self._fd)


def page_floor(at: int) -> int:
    return at & -PAGE


def page_ceiling(at: int) -> int:
    return (at + PAGE - 1) & -PAGE


def _call(status: int) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
