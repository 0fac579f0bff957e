"""Compile for Verilator's makefiles, keeping the objects that are the same for every design for the next build.

Run as ``python object_cache.py c++ -Os ... -c -o verilated.o /.../verilated.cpp`` (make's ``OBJCACHE``). Verilator's
own runtime and cocotb's main program take longer to compile than most designs. Their objects are kept by the whole
command line, the source, and the one generated header that the main program includes. Everything else is compiled as
asked.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys

MAIN, MODEL_HEADER = "verilator.cpp", "Vtop.h"
"""cocotb's main program, and what it includes of the design."""


def identity(command: list[str]) -> str | None:
    """Return what an object is kept by, or None if it is not the same for every design."""
    source = command[-1]
    if "-c" not in command or "-o" not in command:
        return None
    header = b""
    if os.path.basename(source) == MAIN and os.path.exists(MODEL_HEADER):
        with open(MODEL_HEADER, "rb") as file:
            header = file.read()
    elif not source.startswith(os.path.join(os.environ.get("VERILATOR_ROOT", ""), "include", "")):
        return None
    status = os.stat(source)
    return hashlib.sha256(repr((command, status.st_size, status.st_mtime_ns, header)).encode()).hexdigest()[:24]


def main(command: list[str]) -> int:
    """Run a compiler command, or copy the object it would make; return the exit status."""
    cache = os.environ.get("BITSWITCH_OBJECT_CACHE")
    key = identity(command) if cache else None
    if key is None:
        return subprocess.call(command)
    kept = os.path.join(cache, key + ".o")
    target = command[command.index("-o") + 1]
    os.makedirs(cache, exist_ok=True)
    with open(kept + ".lock", "w") as lock:
        # Who comes second waits for the object rather than making it too.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(kept):
            shutil.copyfile(kept, target)
            return 0
        failed = subprocess.call(command)
        if not failed:
            temporary = f"{kept}.{os.getpid()}"
            shutil.copyfile(target, temporary)
            os.replace(temporary, kept)
        return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
