"""What several tests of the pipeline need."""

import pytest

from pipeline.journal import Journal


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "outputs")
    yield journal
    journal.close()
