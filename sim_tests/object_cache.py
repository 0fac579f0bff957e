"""Compile for Verilator's makefiles, keeping the objects of Verilator's own runtime for the next build.

Run as ``python object_cache.py c++ -Os ... -c -o verilated.o /.../verilated.cpp`` (make's ``OBJCACHE``). The runtime
is the same for every design and takes longer to compile than most of them; only its objects are kept, by the whole
command line. Everything else is compiled as asked.
"""

import hashlib
import os
import shutil
import subprocess
import sys


def main(command: list[str]) -> int:
    """Run a compiler command, or copy the object it would make; return the exit status."""
    cache = os.environ.get("BITSWITCH_OBJECT_CACHE")
    runtime = os.path.join(os.environ.get("VERILATOR_ROOT", ""), "include", "")
    source = command[-1]
    if not cache or "-c" not in command or "-o" not in command or not source.startswith(runtime):
        return subprocess.call(command)
    status = os.stat(source)
    key = hashlib.sha256(repr((command, status.st_size, status.st_mtime_ns)).encode()).hexdigest()[:24]
    kept = os.path.join(cache, key + ".o")
    target = command[command.index("-o") + 1]
    if not os.path.exists(kept):
        failed = subprocess.call(command)
        if failed:
            return failed
        os.makedirs(cache, exist_ok=True)
        temporary = f"{kept}.{os.getpid()}"
        shutil.copyfile(target, temporary)
        os.replace(temporary, kept)
    else:
        shutil.copyfile(kept, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
