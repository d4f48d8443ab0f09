"""ZIP archives read with bounds: members, declared sizes and really read bytes are all limited."""

import io
import posixpath
import zipfile
import zlib

from retrieval.errors import ParseFailed, ParseLimit
from retrieval.parsing.text import collapse

MAX_MEMBERS = 10_000
MAX_DECLARED_BYTES = 512 * 1024 * 1024
MAX_PART_BYTES = 128 * 1024 * 1024
MAX_READ_BYTES = 256 * 1024 * 1024

_MEMBER_SIGNATURE = b"PK\x01\x02"
_ENCRYPTED_FLAG = 0x1
_STEP = 1 << 20
_BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    OSError, IndexError,
)  # fmt: skip


class Archive:
    """The parts of one ZIP archive by path; archives inside it are never opened.

    Raises:
        ParseFailed: damaged, encrypted, or compressed in a way that Office and EPUB do not use.
        ParseLimit: too many members, or more bytes declared than `MAX_DECLARED_BYTES`.
    """

    def __init__(self, data: bytes, name: str) -> None:
        # zipfile builds an object for every member before anyone can count them.
        members = data.count(_MEMBER_SIGNATURE)
        if members > MAX_MEMBERS:
            raise ParseLimit(f"{name} holds {members} archive members; the limit is {MAX_MEMBERS}")
        self._name = name
        self._read = 0
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except _BROKEN as error:
            raise ParseFailed(
                f"{name} is a damaged or truncated archive: {collapse(str(error))}"
            ) from error
        self._members = {info.filename.lstrip("/"): info for info in self._zip.infolist()}
        declared = sum(info.file_size for info in self._members.values())
        if declared > MAX_DECLARED_BYTES:
            raise ParseLimit(
                f"{name} unpacks to {declared} bytes; the limit is {MAX_DECLARED_BYTES}"
            )

    def __contains__(self, path: str) -> bool:
        return path in self._members

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all members, in the archive's order."""
        return tuple(self._members)

    def read(self, path: str, limit: int = MAX_PART_BYTES) -> bytes:
        """The bytes of the part at `path`.

        Raises:
            ParseFailed: the part is missing, damaged or encrypted.
            ParseLimit: it unpacks to more than `limit` bytes, or all parts read so far to more
                than `MAX_READ_BYTES`.
        """
        info = self._members.get(path)
        part = collapse(path)[:200]
        if info is None:
            raise ParseFailed(f"{self._name} is incomplete: it has no part {part}")
        if info.flag_bits & _ENCRYPTED_FLAG:
            raise ParseFailed(
                f"{self._name} is encrypted (part {part}); save it without a password"
            )
        # The other methods hand out what one input block unpacks to in one unbounded piece.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ParseFailed(
                f"part {part} of {self._name} is compressed by method {info.compress_type}; "
                "only stored (0) and deflated (8) parts are read"
            )
        try:
            return self._read_bounded(info, min(limit, MAX_READ_BYTES - self._read))
        except _BROKEN as error:
            raise ParseFailed(
                f"part {part} of {self._name} is damaged: {collapse(str(error))}"
            ) from error

    def _read_bounded(self, info: zipfile.ZipInfo, limit: int) -> bytes:
        pieces, size = [], 0
        with self._zip.open(info) as stream:
            while piece := stream.read(_STEP):
                size += len(piece)
                if size > limit:
                    raise ParseLimit(
                        f"part {collapse(info.filename)[:200]} of {self._name} unpacks to more "
                        f"than the {limit} bytes that are allowed"
                    )
                pieces.append(piece)
        self._read += size
        return b"".join(pieces)


def resolve(base: str, target: str) -> str:
    """`target` as a path from the archive's root; `base` is the path of the part that names it."""
    if target.startswith("/"):
        return posixpath.normpath(target).lstrip("/")
    return posixpath.normpath(posixpath.join(posixpath.dirname(base), target))
