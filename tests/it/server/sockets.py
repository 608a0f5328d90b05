"""Opens two sockets as systemd does, and starts and stops a program that inherits them.

Usage: sockets.py NAMES PROGRAM ARGUMENT...; commands on standard input: start, stop.
"""
import fcntl
import os
import signal
import socket
import subprocess
import sys

FIRST = 3


def listener():
    opened = socket.socket()
    opened.bind(("127.0.0.1", 0))
    opened.listen(128)
    return opened


sockets = [listener(), listener()]
descriptors = [fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 20) for opened in sockets]


def pass_on():
    for index, descriptor in enumerate(descriptors):
        os.dup2(descriptor, FIRST + index)


environment = dict(os.environ, LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES=sys.argv[1])
print(*[opened.getsockname()[1] for opened in sockets], flush=True)
child = None
for command in sys.stdin:
    if command == "start\n":
        child = subprocess.Popen(
            ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", *sys.argv[2:]],
            close_fds=False, preexec_fn=pass_on, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL)
        print("started", flush=True)
    else:
        child.send_signal(signal.SIGTERM)
        print(child.wait(), flush=True)
        child = None
if child:
    child.kill()
