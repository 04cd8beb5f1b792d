"""The program ``fsmm`` without the seconds of its imports: each call is a process of its own, forked from a warm one.

``warm_program`` puts a file ``fsmm`` into a folder, for PATH. Whoever calls it gets what ``python -m fsmm`` would do,
in the same folder, with the same environment and streams; only the libraries are loaded already.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

LOADED = (
    "torch",
    "h5py",
    "scipy.stats",
    "sklearn.linear_model",
    "fsmm.cli",
    "fsmm.runs.run",
    "fsmm.studies.compare",
)
"""What the warm process imports."""
CLIENT = """\
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = {{"words": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(server, [json.dumps(request).encode() + b"\\n"], [0, 1, 2])
    sys.exit(int(server.makefile().readline() or 1))
"""


@contextlib.contextmanager
def warm_program(folder: Path) -> Iterator[Path]:
    """The path of a program ``fsmm`` in a folder, which works while the context is open."""
    with tempfile.TemporaryDirectory() as place:
        address, client = f"{place}/s", Path(place) / "client.py"
        client.write_text(CLIENT.format(address=address))
        program = folder / "fsmm"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -SE "{client}" "$@"\n')
        program.chmod(0o755)
        server = subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n", "the warm process has not started"
            yield program
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


def serve(address: str) -> None:
    """Answer calls one after another: each is done by a forked process, and its exit code is the answer."""
    for name in LOADED:
        __import__(name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            caller, _ = listening.accept()
            with caller:
                message, streams, _, _ = socket.recv_fds(caller, 1 << 16, 3)
                while not message.endswith(b"\n"):
                    message += caller.recv(1 << 16)
                process = os.fork()
                if process == 0:
                    become(json.loads(message), streams)
                for stream in streams:
                    os.close(stream)
                _, status = os.waitpid(process, 0)
                caller.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def become(request: dict[str, object], streams: list[int]) -> None:
    """Be the program with the words, folder, environment and streams of a call; the process ends."""
    words, environment = request["words"], request["environment"]
    assert isinstance(words, list)
    assert isinstance(environment, dict)
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(environment)
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
    sys.argv = ["fsmm", *words]
    code = 1
    try:
        runpy.run_module("fsmm", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        with contextlib.suppress(OSError, ValueError):  # What the program has closed needs no flush.
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
