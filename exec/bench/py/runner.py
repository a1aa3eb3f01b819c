"""A labmesh benchmark runner in Python: runner.py ENGINE probe|run

ENGINE is torch or onnxruntime. It speaks version 1 of the runner protocol (see
docs/runner-protocol.md): a spec as JSON on standard input, events as JSON lines
on standard output. It needs Python 3.8 and the engine's package, nothing else.
"""

import os
import sys

if sys.version_info < (3, 8):
    sys.exit("this is Python %d.%d; the benchmark runner needs 3.8 or later" % sys.version_info[:2])

# Events have the standard output to themselves: whatever a library prints there,
# from Python or from C, goes to the standard error.
EVENTS = os.dup(1)
os.dup2(2, 1)
sys.stdout = sys.stderr

if __name__ == "__main__":
    from labmesh_bench import main

    sys.exit(main.main(sys.argv[1:], EVENTS))
