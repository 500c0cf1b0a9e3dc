"""How the demo model's parts are trained: from pictures to files that the product reads."""

import argparse
import sys
import time
from random import Random
from shutil import copytree

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipeline.embeddings import read_embedding
from pipeline.families.layer_names import LayerNames
from pipeline.models import Catalog
from pipeline.networks import NetworkRequest, NetworkSet
from pipeline.networks.file import NetworkFile, trigger_words, version
from pipeline.networks.merging import Wanted
from pipeline.weights import Weights
from tools.demo_model import encode, export, train_embedding, train_lora, train_unet
from tools.demo_model.draw import draw
from tools.demo_model.encode import latents_folder
from tools.demo_model.scenes import sample_scenes, scene
from tools.demo_model.tokenizer import LENGTH, token_rows, train_tokenizer
from tools.demo_model.train_autoencoder import new_autoencoder, start_as_averaging
from tools.demo_model.train_embedding import MARKS, Vectors, only_token, wintry
from tools.demo_model.train_lora import Lora
from tools.demo_model.train_tiny import CROP, Pairs, new_tiny, tiny_loss
from tools.demo_model.train_unet import Bank
from tools.demo_model.training import Course, clock_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, captions=300)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return CLIPTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture
def threads():
    """Trainings change how many threads torch uses."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.fixture
def work(tmp_path):
    """A work folder with an untrained autoencoder and four small pictures."""
    model = new_autoencoder()
    start_as_averaging(model)
    torch.save(dict(ema=model.state_dict()), tmp_path / "autoencoder.pt")
    (tmp_path / "pictures").mkdir()
    np.save(tmp_path / "pictures" / "0000.npy", np.stack([draw(made, 64) for made in sample_scenes(4, 1)]))
    return tmp_path


def new_unet():
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=8, in_channels=9, layers_per_block=1, block_out_channels=(16, 32), cross_attention_dim=24,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, norm_num_groups=8).eval().requires_grad_(False)


def answer(unet):
    random = torch.Generator().manual_seed(2)
    return unet(torch.randn(1, 9, 8, 8, generator=random), 500, torch.randn(1, 77, 24, generator=random)).sample


def command(tool, work, monkeypatch, options):
    """The tool as it is called from a shell."""
    monkeypatch.setattr(sys, "argv", [tool.__name__, "--work", str(work), "--device", "cpu", *options.split()])
    tool.main()


def encode_at(work, size, monkeypatch):
    command(encode, work, monkeypatch, f"--size {size} --threads 1")
    return latents_folder(work, size)


# --- time and checkpoints

def test_a_training_is_not_charged_for_the_time_that_others_have_the_machine(threads):
    torch.set_num_threads(1)
    clock = clock_of(CPU, argparse.Namespace(count=1))
    begun = clock()
    time.sleep(0.3)
    assert clock() - begun < 0.1


def test_a_training_goes_on_where_it_stopped(tmp_path, threads):
    options = dict(rate=0.01, workers=1, seed=1, save_every=1.0)
    wanted = torch.tensor([[1.0, -2.0]])

    def course(minutes):
        torch.manual_seed(0)
        line = torch.nn.Linear(2, 1)
        made = Course(tmp_path / "line.pt", line, argparse.Namespace(minutes=minutes, **options), CPU, muon=False)
        return made, line, lambda x: (line(x) - x @ wanted.T).square().mean()

    def batch(random):
        return torch.from_numpy(random.normal(size=(16, 2))).float(),

    first, line, loss = course(0.01)
    with torch.no_grad():
        before = loss(*batch(np.random.default_rng(9)))
    first.run(batch, loss, lambda: "")
    assert first.step > 50 and loss(*batch(np.random.default_rng(9))) < before / 10
    again, copy, loss = course(0.01)
    assert again.step == first.step and torch.equal(copy.weight, line.weight)
    again.run(batch, loss, lambda: "")
    assert again.step == first.step  # its minutes are spent
    more, _, loss = course(0.02)
    more.run(batch, loss, lambda: "")
    assert more.step > first.step


# --- the bank at two sizes

def test_the_bank_is_encoded_at_any_size_in_the_same_scale(work, monkeypatch, threads, tokenizer):
    whole, half = (encode_at(work, size, monkeypatch) for size in (64, 32))
    a, b = (torch.load(folder / "about.pt") for folder in (whole, half))
    assert a["scaling_factor"] == b["scaling_factor"]
    large, small = (torch.load(folder / "0000.pt") for folder in (whole, half))
    assert large["clean"].shape == (4, 4, 8, 8) and small["mask"].shape == (4, 1, 4, 4)
    bank = Bank.of(half, tokenizer, drop=0.0, masked=0.0, seed=1)
    batch = bank.draw(3, CPU)
    assert batch.clean.shape == (3, 4, 4, 4) and batch.condition.shape == (3, 5, 4, 4)
    assert 0.5 < (bank.clean.float() * bank.scaling_factor).std() < 2


def test_another_encoder_makes_the_bank_anew(work, monkeypatch, threads):
    folder = encode_at(work, 64, monkeypatch)
    before = torch.load(folder / "0000.pt")["clean"]
    state = torch.load(work / "autoencoder.pt")
    state["ema"]["quant_conv.bias"][:4] += 1
    torch.save(state, work / "autoencoder.pt")
    encode_at(work, 64, monkeypatch)
    assert not torch.equal(torch.load(folder / "0000.pt")["clean"], before)


# --- the UNet

def test_the_unet_trains_on_small_pictures_first_and_goes_on_with_large_ones(work, monkeypatch, threads,
                                                                            tokenizer_folder):
    copytree(tokenizer_folder, work / "tokenizer")
    for size, images in ((32, 4), (64, 8)):
        encode_at(work, size, monkeypatch)
        command(train_unet, work, monkeypatch, f"--size {size} --images {images} --batch 2 --word-steps 1 --minutes 9")
        state = torch.load(work / "unet.pt")
        assert (state["images"], state["step"]) == (images, images // 2)
        assert Image.open(work / "unet.png").size == (8 * size, 2 * size)


# --- the tiny autoencoder

def test_the_tiny_decoder_learns_from_a_picture_and_its_own_latent(tmp_path):
    cells = np.arange(16 * 16).reshape(1, 16, 16) + np.array([0, 100])[:, None, None]
    (tmp_path / "pictures").mkdir(), (tmp_path / "latents").mkdir()
    pixels = (cells % 256).repeat(8, 1).repeat(8, 2)[..., None].repeat(3, 3).astype(np.uint8)
    np.save(tmp_path / "pictures" / "0000.npy", pixels)
    torch.save(dict(scaling_factor=0.5), tmp_path / "latents" / "about.pt")
    latents = torch.from_numpy(cells % 256)[:, None].repeat(1, 4, 1, 1).half()
    torch.save(dict(clean=latents), tmp_path / "latents" / "0000.pt")
    pictures, parts = Pairs(tmp_path).draw(6, np.random.default_rng(1))
    assert parts.shape == (6, 4, CROP, CROP)
    shrunk = torch.nn.functional.avg_pool2d((pictures + 1) * 127.5, 8)
    assert torch.allclose(shrunk[:, :1], parts[:, :1] * 2, atol=0.01)


def test_the_tiny_autoencoder_learns():
    torch.manual_seed(1)
    tiny = new_tiny()
    latents = torch.randn(2, 4, 4, 4)
    pictures = torch.nn.functional.interpolate(latents[:, :3].tanh(), scale_factor=8.0)
    optimizer, losses = torch.optim.AdamW(tiny.parameters(), lr=2e-3), []
    for _ in range(40):
        losses.append(tiny_loss(tiny, pictures, latents))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    assert tiny.decode(latents).sample.shape == (2, 3, 32, 32) and tiny.encode(pictures).latents.shape == latents.shape


# --- the LoRA

def test_stained_glass_has_lead_around_its_panes_and_is_the_same_again():
    made = scene(place="lake", thing="boat", colour="red", style="stained glass", seed=4)
    picture = draw(made, 128)
    assert np.array_equal(picture, draw(made, 128))
    assert 0.08 < (picture.max(2) < 60).mean() < 0.4
    assert all(other.style != "stained glass" for other in sample_scenes(300, 1))


def test_captions_for_the_lora_name_its_style_alone():
    said = [train_lora.say(made, Random(n)) for n, made in enumerate(sample_scenes(50, 2)) if made.style == "flat"]
    assert said and all("stained glass" in text for text in said)
    assert not [text for text in said if "illustration" in text or "photo" in text]


def test_a_new_lora_adds_nothing_and_learns_in_every_layer():
    unet = new_unet()
    before, lora = answer(unet), Lora(unet, rank=2)
    handles = lora.join()
    assert torch.equal(answer(unet), before)
    answer(unet).square().mean().backward()
    assert len(lora.layers) > 30 and all(low.up.weight.grad.abs().sum() > 0 for low in lora.layers.values())
    for handle in handles:
        handle.remove()


def test_the_product_reads_the_lora_as_it_was_trained(tmp_path):
    unet = new_unet()
    before, lora = answer(unet), Lora(unet, rank=2).requires_grad_(False)
    for low in lora.layers.values():
        low.up.weight.copy_(torch.randn(low.up.weight.shape) * 0.2)
    handles = lora.join()
    wanted = answer(unet)
    for handle in handles:
        handle.remove()
    path = tmp_path / "glass.safetensors"
    train_lora.write(lora, path, 500)
    assert len(NetworkFile(path).layers) == len(lora.layers)
    text = CLIPTextModel(CLIPTextConfig(vocab_size=64, hidden_size=24, intermediate_size=24, num_hidden_layers=1,
                                        num_attention_heads=2))
    with torch.inference_mode():
        wholly = NetworkSet().apply(lambda: LayerNames(dict(unet=unet, text_encoder=text)),
                                    [Wanted(NetworkRequest("glass", 1.0, 1.0, None), path, version(path))])
        made = answer(unet)
    assert wholly == []
    assert (made - wanted).abs().max() < 0.02 * (wanted - before).abs().max()
    assert trigger_words(Weights(path).metadata) == ["stained glass"]


# --- the embedding and what is exported

def test_the_vectors_stand_where_their_marks_are_and_nowhere_else(tokenizer):
    torch.manual_seed(3)
    text_encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=LENGTH)).eval().requires_grad_(False)
    rows = torch.tensor(token_rows(tokenizer, ["a village, ~ ^", "a village, snow evening", "a village at night"]))
    plain = text_encoder(rows).last_hidden_state
    vectors = Vectors(text_encoder, tokenizer)
    handle = vectors.join(text_encoder)
    made = text_encoder(rows).last_hidden_state
    assert torch.allclose(made[0], plain[1], atol=1e-6)  # they begin as these words
    assert torch.equal(made[1:], plain[1:])
    made[0].square().sum().backward()
    assert (vectors.vectors.grad.abs().sum(1) > 0).all()
    handle.remove()


def test_the_marks_are_no_part_of_any_caption(tokenizer):
    assert len({only_token(tokenizer, mark) for mark in MARKS}) == len(MARKS)
    said = [train_embedding.say(wintry(made), Random(n)) for n, made in enumerate(sample_scenes(60, 4))]
    assert all(text.count("~ ^") == 1 and text.replace("~ ^", "").isascii() for text in said)
    assert not any(word in text for text in said for word in ("snowing", "in winter", "at sunset"))
    with pytest.raises(ValueError):
        only_token(tokenizer, "a village")


def test_winter_tales_are_all_of_one_mood():
    scenes = [wintry(made) for made in sample_scenes(40, 5)]
    assert {(made.time, made.season, made.weather, made.style) for made in scenes} == {
        ("evening", "winter", "snow", "flat")}
    assert not {"sea", "desert"} & {made.place for made in scenes} and len({made.place for made in scenes}) > 3


def test_the_product_reads_the_embedding(tmp_path):
    path = tmp_path / "winter-tale.safetensors"
    train_embedding.write(torch.randn(2, 192), path, 300)
    embedding = read_embedding(path)
    assert (embedding.name, embedding.count, embedding.width, embedding.step) == ("winter-tale", 2, 192, 300)


def test_what_was_trained_lies_where_the_product_finds_it(tmp_path, threads):
    (tmp_path / "models").mkdir()
    train_embedding.write(torch.randn(2, 192), tmp_path / "winter-tale.safetensors", 1)
    export.write_networks(tmp_path, tmp_path / "networks")
    catalog = Catalog(tmp_path / "models", also=[tmp_path / "networks"])
    assert [file.name for file in catalog.embeddings()] == ["winter-tale"] and catalog.loras() == []
    train_lora.write(Lora(new_unet(), rank=2), tmp_path / "stained-glass.safetensors", 1)
    export.write_networks(tmp_path, tmp_path / "networks")
    catalog.refresh()
    assert catalog.find_lora("stained-glass").path.is_file()
