import platform
import subprocess
import sys

from quant.memory import keep_freed_memory

FAULTS = """
import resource, torch
from quant.memory import keep_freed_memory
if {kept}:
    assert keep_freed_memory()
def faults(values):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(values)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(1 << 25)
print(faults(1 << 24))
"""


def test_only_the_gnu_library_has_the_switch():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_a_tensor_takes_the_place_of_a_larger_one_before():
    def faults(kept):
        command = [sys.executable, "-c", FAULTS.format(kept=kept)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    if keep_freed_memory():
        assert 10 * faults(True) < faults(False)
