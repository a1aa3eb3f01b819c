"""A worker for a labmesh mesh: a machine that is no node of it, attached over a WebSocket.

Run it with ``python -m labmesh.worker --coordinator URL``, or give it functions of your own: see
:class:`Worker`. It needs the package ``websockets``.
"""

try:
    import websockets as _websockets  # noqa: F401
except ImportError as e:
    raise ImportError(
        "labmesh.worker needs the package websockets: apt-get install python3-websockets, or pip install 'labmesh[worker]'"
    ) from e

from .jobs import Handler, Job, TaskError, run_custom, run_test
from .worker import Worker

__all__ = ["Handler", "Job", "TaskError", "Worker", "run_custom", "run_test"]
