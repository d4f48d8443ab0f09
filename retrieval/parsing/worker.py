"""The parse worker: reads requests on stdin, parses under rlimits, answers on its old stdout.

Run as `python -m retrieval.parsing.worker AS_BYTES`. It ends when stdin closes.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from retrieval.errors import DocumentError
from retrieval.parsing.formats import parse_bytes
from retrieval.parsing.wire import LENGTH_BYTES, encode_document


def main() -> None:
    """Serve until stdin closes."""
    address_space = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # Whatever a C library prints must not land between two answers.
    answers = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    for line in sys.stdin.buffer:
        body = json.dumps(_serve(json.loads(line))).encode()
        view = memoryview(len(body).to_bytes(LENGTH_BYTES, "big") + body)
        while view:
            view = view[os.write(answers, view) :]


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    name = request["name"]
    used = resource.getrusage(resource.RUSAGE_SELF)
    # The CPU limit counts from the start of the process, a request's share from here.
    soft = int(used.ru_utime + used.ru_stime) + 1 + request["cpu_s"]
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
    try:
        return encode_document(parse_bytes(Path(request["path"]).read_bytes(), name))
    except DocumentError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        return {"error": "ParseLimit", "message": f"{name} needs more memory than parsing may use"}
    except RecursionError:
        return {"error": "ParseFailed", "message": f"{name} is nested too deeply to be parsed"}
    except Exception as error:  # noqa: BLE001 - the sandbox's edge: a parser bug is one failed file
        reason = f"{type(error).__name__}: {error}"
        return {"error": "ParseFailed", "message": f"{name} could not be parsed ({reason[:200]})"}


if __name__ == "__main__":
    main()
