"""``python -m labmesh.worker``: lend this machine to a mesh."""

from __future__ import annotations

import argparse
import logging
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Optional

from ..errors import DeniedError, LabmeshError
from . import Handler, Worker

log = logging.getLogger("labmesh.worker")

EXIT_USAGE, EXIT_UNREACHED, EXIT_DENIED = 2, 3, 4


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m labmesh.worker",
        description="Lend this machine to a labmesh mesh: it runs programs and test files, one at a time, until Ctrl-C.",
        epilog="Addresses and key are also read from LABMESH_ADDR and LABMESH_API_KEY, or from the data dir of a node of this machine. "
        "A key on the command line can be seen by other users of the machine: prefer the variable, or --api-key-file.",
    )
    p.add_argument("--coordinator", action="append", metavar="URL", help="a node of the mesh; give several for when one goes away")
    p.add_argument("--api-key", metavar="KEY", help="an API key with the role worker")
    p.add_argument("--api-key-file", metavar="FILE", type=Path, help="the same, from a file")
    p.add_argument("--worker-id", metavar="ID", help="the worker's name in the mesh, its own; a new one each time by default")
    p.add_argument("--hostname", help="what to call this machine; its hostname by default")
    p.add_argument("--hardware", action="append", default=[], metavar="WORD", help="what else it has that tasks may ask for, e.g. tpu")
    p.add_argument("--tag", action="append", default=[], type=_tag, metavar="NAME=VALUE", help="a tag that tasks may ask for")
    p.add_argument("--work-dir", metavar="DIR", help="where tasks get their directories; the usual temporary one by default")
    p.add_argument("--signing-key-file", metavar="FILE", type=Path, help="the key to sign messages with, for API keys that demand it")
    p.add_argument("--ca-file", metavar="FILE", help="the certificates to trust, for https:// with one of your own")
    p.add_argument("--cut-off-seconds", type=float, default=30.0, metavar="S", help="stop a task after so long without a node; 0 lets it go on; default 30")
    p.add_argument("--db-path", help=argparse.SUPPRESS)  # of the framework's worker; the mesh keeps results itself
    p.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return p


def main(argv: Optional[Sequence[str]] = None, handlers: Optional[Mapping[str, Handler]] = None) -> int:
    """The command line. ``handlers`` are more functions to run tasks by, by type."""
    args = parser().parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=args.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)
    if args.db_path:
        log.info("--db-path is left aside: the mesh keeps every result (labmesh sql)")
    try:
        worker = _worker(args)
        worker.on_registered = _Ready(worker.worker_id)
        for type, handler in (handlers or {}).items():
            worker.task(type)(handler)
        worker.run()
    except DeniedError as e:
        return _sorry(e, EXIT_DENIED)
    except (OSError, LabmeshError) as e:
        return _sorry(e, EXIT_UNREACHED if isinstance(e, ConnectionError) else EXIT_USAGE)
    return 0


def _worker(args: argparse.Namespace) -> Worker:
    key = args.api_key
    if args.api_key_file:
        key = args.api_key_file.read_text().strip()
    signing_key = os.environ.get("LABMESH_SIGNING_KEY")
    if args.signing_key_file:
        signing_key = args.signing_key_file.read_text().strip()
    return Worker(
        args.coordinator,
        key,
        worker_id=args.worker_id,
        hostname=args.hostname,
        hardware=args.hardware,
        tags=dict(args.tag),
        signing_key=signing_key or None,
        work_dir=args.work_dir,
        cut_off_seconds=args.cut_off_seconds or None,
        ssl_context=ssl.create_default_context(cafile=args.ca_file) if args.ca_file else None,
    )


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


class _Ready:
    """Says once, on stdout, that the worker is there."""

    def __init__(self, worker_id: str) -> None:
        self._line = f"labmesh worker ready {worker_id}"

    def __call__(self, url: str) -> None:
        if self._line:
            print(f"{self._line} {url}", flush=True)
        self._line = ""


def _sorry(e: Exception, code: int) -> int:
    print(f"labmesh.worker: {e}", file=sys.stderr)
    return code


def _exit() -> NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    _exit()
