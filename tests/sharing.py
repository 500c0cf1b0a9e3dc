"""How the suite is shared out: which tests run beside each other, and with how many threads each."""

import gc
import os

import pytest
from xdist.scheduler import LoadScopeScheduling

BROWSER = "tests/ui/"
"""Where the tests are that need the browser."""
WORKERS = 2

# Before torch is imported, here and in the servers that tests start. Where more threads compute than processors are free,
# each small operation waits for the slowest of them: beside one busy process it takes four times as long. And what is equal
# to the bit must not depend on how many processors there are.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers(config):
    """Several processes for a folder of tests; none but this one for files and single tests: starting others takes longer."""
    return WORKERS if any(os.path.isdir(name) for name in config.args) else 0


class Sharing(LoadScopeScheduling):
    """A file's tests run in one process, as they share fixtures. So do all of the browser's: two browsers slow each other down."""

    def _split_scope(self, nodeid):
        return BROWSER if nodeid.startswith(BROWSER) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config, log):
    return Sharing(config, log)


def pytest_collection_modifyitems(config, items):
    """The largest share first, so that the others' processes do not end long before it."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(BROWSER))


@pytest.fixture(scope="module", autouse=True)
def imports_are_no_garbage():
    """Garbage is looked for in what a file's own tests make, not among the hundreds of thousands of objects of the imports."""
    gc.collect()
    gc.freeze()
