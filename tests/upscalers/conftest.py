import pytest

from pipeline.models import Catalog
from pipeline.upscalers.names import Upscalers
from pipeline.upscalers.running import Running
from tests.upscalers import tiny


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory):
    """A models folder with upscalers of random weights."""
    root = tmp_path_factory.mktemp("models")
    tiny.saved(tiny.esrgan(4, blocks=1, growth=2), root / "ESRGAN" / "tiny.safetensors")
    tiny.saved(tiny.compact(2, seed=1), root / "ESRGAN" / "double.safetensors")
    tiny.saved(tiny.compact(1, seed=2), root / "ESRGAN" / "same.safetensors")
    tiny.saved(tiny.real_esrgan(4, blocks=1, growth=2, seed=3), root / "RealESRGAN" / "RealESRGAN_x4plus.safetensors")
    tiny.saved(tiny.dat(2, depths=(2,)), root / "DAT" / "DAT_x2.safetensors")
    (root / "ESRGAN" / "old.pth").write_bytes(b"PK\x03\x04")
    (root / "Stable-diffusion").mkdir()
    return root


@pytest.fixture
def catalog(models_dir, tmp_path):
    return Catalog(models_dir, cache=tmp_path / "hashes.json")


@pytest.fixture
def upscalers(catalog):
    return Upscalers(catalog, Running(Upscalers(catalog).file).run)
