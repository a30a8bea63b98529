"""Files that are there whole, or as they were."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def whole_file(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file to write bytes to, which takes the place of `path` when all is written; if that fails, nothing of it stays.

    durable: on the disk before that, for machines that lose power.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, **options: Any) -> None:
    """UTF-8; as `whole_file`."""
    with whole_file(path, **options) as file:
        file.write(text.encode())
