"""How the test suite is distributed: which tests run in parallel, and with how many threads each."""

import gc
import os

import pytest
from xdist.scheduler import LoadScopeScheduling

BROWSER = "tests/ui/"
"""The tests that need the browser."""
WORKERS = 2

# Before torch is imported, here and in the servers that tests start. Where more threads compute than processors are free,
# each small operation waits for the slowest of them: beside one busy process it takes four times as long. And what is equal
# to the bit must not depend on how many processors there are.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers(config):
    """Several processes for folders of tests; only this one for files and single tests, as starting others takes longer."""
    return WORKERS if any(os.path.isdir(name) for name in config.args) else 0


class Sharing(LoadScopeScheduling):
    """A file's tests share fixtures, so they run in one process. So do all browser tests: two browsers slow each other down."""

    def _split_scope(self, nodeid):
        return BROWSER if nodeid.startswith(BROWSER) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config, log):
    return Sharing(config, log)


def pytest_collection_modifyitems(config, items):
    """The largest group first, so that the other processes do not finish long before it."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(BROWSER))


@pytest.fixture(scope="module", autouse=True)
def imports_are_no_garbage():
    """Exempt the imports' hundreds of thousands of objects from garbage collection."""
    gc.collect()
    gc.freeze()
