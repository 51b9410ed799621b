"""Lightning's trainer as the training commands use it: quiet, and interrupted when asked to."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator

from baselines.potentials.loading import quiet


@contextlib.contextmanager
def lightning_session() -> Iterator[None]:
    """Build and run a trainer without its remarks on workers and products, progress on stderr.

    Raises:
        KeyboardInterrupt: It was interrupted. Lightning itself would end the process with 1, and
            ignore every interrupt from then on.
    """
    logger, handler = logging.getLogger("lightning.pytorch"), signal.getsignal(signal.SIGINT)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet(), contextlib.redirect_stdout(sys.stderr):
            yield
    except SystemExit as ended:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from ended
    finally:
        logger.setLevel(level)
