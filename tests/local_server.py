"""A server of a test, which answers while a block runs."""

import threading
from contextlib import contextmanager


@contextmanager
def answering(server, before_shutdown=lambda: None):
    """Answer requests in a thread until the end of the block, then close the server.

    Args:
        server: One of `socketserver`, bound to its port.
        before_shutdown: Called when the block has ended.
    """
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            before_shutdown()
            server.shutdown()
            thread.join()
