"""A server of ours in a process of its own, for as long as a test asks it."""

import contextlib
import subprocess


@contextlib.contextmanager
def serving(roxanne, data, *more, env=None):
    """Gives its address. It must end well when it is told to, however the test did."""
    command = [roxanne, "serve", "--data", data, "--bind", "127.0.0.1:0", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as server:
        try:
            yield server.stdout.readline().split()[-1]
            assert server.poll() is None, "the server has ended"
        finally:
            server.terminate()
            assert server.wait(60) == 0, server.returncode
