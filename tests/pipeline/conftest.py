"""What several tests of the pipeline need."""

import os
import secrets

import pytest

from app import MODELS_DIR, STORE
from pipeline.journal import Journal
from pipeline.ray_workers import START, Cluster


@pytest.fixture(scope="session")
def ray(tmp_path_factory):
    """A Ray on this machine, with seats for five workers, whose own models are in folders of their own."""
    folder = tmp_path_factory.mktemp("machine")
    os.environ |= {"RAY_AUTH_TOKEN": secrets.token_hex(16),  # so that no file in the home folder is made or needed
                   MODELS_DIR: str(folder / "models"), STORE: str(folder / "borrowed")}
    cluster = Cluster(START, cpus=5)
    yield cluster
    cluster.close()


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "outputs")
    yield journal
    journal.close()
