"""How the test suite is distributed: which tests run in parallel, and with how many threads each."""

import gc
import os
import sys
from collections import Counter

import pytest
from xdist.scheduler import LoadScopeScheduling

BROWSER = "tests/ui/"
"""The tests that need the browser."""
BROWSERS = 2
"""In how many processes they run: one browser's waits are the other's work."""
WORKERS = 3
LONG = "tests/test_card.py"
"""What takes longest of the others."""

# Before torch is imported, here and in the servers that tests start. Where more threads compute than processors are free,
# each small operation waits for the slowest of them: beside one busy process it takes four times as long. And what is equal
# to the bit must not depend on how many processors there are.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Or each process compiles all modules anew, and pytest rewrites all tests' assertions: a quarter of the time to collect them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_xdist_auto_num_workers(config):
    """Several processes for folders of tests; only this one for files and single tests, as starting others takes longer."""
    return WORKERS if any(os.path.isdir(name) for name in config.args) else 0


def file_of(nodeid):
    return nodeid.partition("::")[0]


class Sharing(LoadScopeScheduling):
    """A file's tests share fixtures, so they run in one process. The browser's files go to the first BROWSERS processes and
    the others to the rest, each to whoever is free; when one kind has run out, all take of the other."""

    def _split_scope(self, nodeid):
        return file_of(nodeid)

    def _assign_work_unit(self, node):
        browser = self.nodes.index(node) < BROWSERS
        if own := next((file for file in self.workqueue if file.startswith(BROWSER) == browser), None):
            self.workqueue.move_to_end(own, last=False)
        super()._assign_work_unit(node)


def pytest_xdist_make_scheduler(config, log):
    return Sharing(config, log)


def pytest_collection_modifyitems(config, items):
    """First the files that open the most pages, then LONG: so that no process is left alone with one of them at the end."""
    if hasattr(config, "workerinput"):
        opened = Counter(file_of(item.nodeid) for item in items if "page" in item.fixturenames and "kept_page" not in item.fixturenames)
        items.sort(key=lambda item: (-opened[file_of(item.nodeid)], not item.nodeid.startswith(LONG)))


@pytest.fixture(scope="module", autouse=True)
def imports_are_no_garbage():
    """Exempt the imports' hundreds of thousands of objects from garbage collection."""
    gc.collect()
    gc.freeze()
