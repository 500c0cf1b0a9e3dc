"""Edits by Palimpsest with the demo model, and the judge's findings."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.embeddings import EmbeddingShelf
from pipeline.families.base import Family
from pipeline.models import Catalog
from pipeline.networks import LoraNames, Networks
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from pipeline.samplers import SAMPLERS
from tools.demo_model import train_embedding, train_lora
from tools.demo_model.attributes import in_words
from tools.demo_model.captions import caption
from tools.demo_model.draw import draw, to_tensor
from tools.demo_model.masks import thing_box
from tools.demo_model.scenes import PLACES, SEASONS, STYLES, TIMES, Scene, sample_scene, scene
from tools.demo_model.train_autoencoder import UNSEEN_SEED, slopes
from tools.demo_model.train_classifier import Judge, named
from tools.demo_model.train_lora import STYLE
from tools.demo_model.words import PLACE_WORDS, SEASON_WORDS, STYLE_WORDS, TIME_WORDS

CAPTIONS = Path(__file__).parent / "test_captions.txt"
KEPT = ("place", "thing", "colour", "spot")
"""What an edit of the time of day should keep."""


def hand_written_captions() -> tuple[list[tuple[str, dict[str, str]]], list[str]]:
    """(hand-written captions with what a picture must show, captions that only must do no harm)."""
    lines = [line for line in CAPTIONS.read_text().splitlines() if line and not line.startswith("#")]
    asked = [line.partition(" | ")[::2] for line in lines if " | " in line]
    return ([(text, dict(word.split("=") for word in shown.split())) for text, shown in asked],
            [line for line in lines if " | " not in line])


def some(row: Sequence, count: int) -> list:
    """`count` entries spread over the whole list."""
    count = min(count, len(row))
    return [row[n * len(row) // count] for n in range(count)]


def tensors(images: list[Image.Image]) -> Tensor:
    """(N, 3, H, W) in [-1, 1]."""
    return to_tensor(np.stack([np.asarray(image.convert("RGB")) for image in images]))


def gradient(pictures: Tensor) -> float:
    """Mean difference of neighbouring pixels, as sharpness of pictures (N, 3, H, W)."""
    return sum(float(part.abs().mean()) for part in slopes(pictures))


def jump(picture: Tensor, mask: Tensor) -> float:
    """Mean difference across the mask's edge: picture (3, H, W), mask (H, W) bool."""
    across, down = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
    right, below = (part.abs().mean(0) for part in slopes(picture))
    return float(torch.cat([right[across], below[down]]).mean())


def changed(random: Random) -> Iterator[tuple[Scene, str, Scene]]:
    """Endless edits of one choice: (source, the change, the requested scene)."""
    lists = dict(time=TIMES, season=SEASONS, place=PLACES, style=STYLES)
    while True:
        for key, names in lists.items():
            source = replace(sample_scene(random), style="flat", weather="clear", sky_body="none")
            if key == "season" and source.place in ("sea", "desert", "city"):
                source = replace(source, place="meadow")
            wanted = random.choice([name for name in names if name != getattr(source, key)])
            yield source, key, replace(source, **{key: wanted})


def said_aloud(scene: Scene, key: str, random: Random) -> str:
    """A caption of the scene that does name the choice `key`."""
    words = dict(place=PLACE_WORDS, time=TIME_WORDS, season=SEASON_WORDS, style=STYLE_WORDS)[key][getattr(scene, key)]
    text = caption(scene, random)
    while not any(word in text for word in words):
        text = caption(scene, random)
    return text


@dataclass
class Found:
    """The results of a kind of edit: named fractions or numbers, and pictures for a contact sheet."""

    values: dict[str, float] = field(default_factory=dict)
    pictures: list[Image.Image] = field(default_factory=list)


@dataclass(frozen=True)
class Exam:
    """A loaded model and its judge; makes `count` edits of each kind, `size` pixels large, in `steps` steps."""

    family: Family
    judge: Judge
    count: int
    size: int = 256
    steps: int = 20
    sampler_steps: tuple[int, ...] = (10, 30)
    catalog: Catalog | None = None
    """Catalog of the LoRA and the embedding, if any."""

    def draw(self, scene: Scene) -> Image.Image:
        return Image.fromarray(draw(scene, self.size))

    def edit(self, source: Image.Image, prompt: str, strength: float, *, mask: Image.Image | None = None, seed: int = 1,
             **more) -> Image.Image:
        """One edit by Palimpsest, at its source's size; `mask` is white = regenerate."""
        request = StableDiffusionProcessingImg2Img(
            self.family, init_images=[source], mask=mask, prompt=prompt, seed=seed, cfg_scale=5.0, width=source.width,
            height=source.height, denoising_strength=strength, inpainting_fill=1, inpaint_full_res=False, mask_blur=2,
            do_not_save_samples=True, do_not_save_grid=True, **dict(steps=self.steps) | more)
        if self.catalog:
            request.networks = Networks(LoraNames(self.catalog).find, self.catalog.hash_of)
            request.embeddings = EmbeddingShelf(self.catalog.embedding_paths)
        return process_images(request).images[0]

    def anew(self, prompt: str, *, size: int | None = None, seed: int = 1, **more) -> Image.Image:
        """A picture from the prompt alone: strength 1 over grey."""
        side = size or self.size
        return self.edit(Image.new("RGB", (side, side), (128, 128, 128)), prompt, 1.0, seed=seed, **more)

    def hits(self, made: list[Image.Image], wanted: list[dict[str, str]]) -> dict[str, list[bool]]:
        """Per choice, whether the judge finds the requested value in each picture."""
        seen, hits = [named(self.judge, tensors([image])) for image in made], {}
        for own, words in zip(seen, wanted):
            for key, word in words.items():
                hits.setdefault(key, []).append(own[key][0] == word)
        return hits

    def steering(self) -> Found:
        """Strength-0.8 edits of one choice each: how often it is found; sources and results alternating."""
        random, made, wanted, shown = Random(UNSEEN_SEED), [], [], []
        for n, (source, key, goal) in zip(range(self.count), changed(random)):
            image = self.draw(source)
            made.append(self.edit(image, said_aloud(goal, key, random), 0.8, seed=n))
            wanted.append({key: getattr(goal, key)})
            shown += [image, made[-1]]
        return Found({key: share(found) for key, found in self.hits(made, wanted).items()}, shown)

    def strengths(self) -> Found:
        """Changing the time of day at 0.3, 0.75 and 1.0: what stays and what appears; rows of a source and its results."""
        random, sources, goals, rows = Random(UNSEEN_SEED + 2), [], [], []
        while len(sources) < max(1, self.count // 4):
            source = replace(sample_scene(random), time="day", style="flat", weather="clear", sky_body="none")
            if source.main:
                sources.append(replace(source, things=(replace(source.main, size="big"),)))
                goals.append(replace(sources[-1], time=random.choice(("evening", "night", "dawn"))))
        for n, (source, goal) in enumerate(zip(sources, goals)):
            image, text = self.draw(source), said_aloud(goal, "time", random)
            rows.append([image, *(self.edit(image, text, strength, seed=n) for strength in (0.3, 0.75, 1.0))])
        _, weak, strong, whole = map(list, zip(*rows))
        before = [{key: in_words(source)[key] for key in KEPT} for source in sources]
        after = [dict(time=goal.time) for goal in goals]
        values = {"strength 0.3 keeps place, thing, colour and spot": share_of_all(self.hits(weak, before)),
                  "strength 0.75 keeps them": share_of_all(self.hits(strong, before)),
                  "strength 0.75 changes the time of day": share_of_all(self.hits(strong, after)),
                  "strength 1.0 changes the time of day": share_of_all(self.hits(whole, after))}
        return Found(values, [image for row in rows for image in row])

    def inpainting(self) -> Found:
        """A big thing inpainted into a box of an empty scene: found or not, and the seam; sources and results alternating."""
        random, found, seams, shown = Random(UNSEEN_SEED + 1), [], [], []
        while len(found) < self.count:
            wanted = replace(sample_scene(random), style="flat", weather="clear")
            if not wanted.main:
                continue
            wanted = replace(wanted, things=(replace(wanted.main, size="big"),))
            source = self.draw(replace(wanted, things=()))
            edges = (edge + sign * 8 for edge, sign in zip(thing_box(wanted), (-1, -1, 1, 1)))
            box = [max(0, min(self.size, round(edge * self.size / 256))) for edge in edges]
            mask = Image.new("L", source.size, 0)
            mask.paste(255, box)
            made = self.edit(source, caption(wanted, random), 1.0, mask=mask, seed=len(found))
            inside = torch.from_numpy(np.asarray(mask) > 0)
            seams.append((jump(tensors([made])[0], inside), jump(tensors([source])[0], inside)))
            hits = self.hits([made], [dict(thing=wanted.main.kind, colour=wanted.main.colour)])
            found.append(all(hit for own in hits.values() for hit in own))
            shown += [Image.composite(source.point(lambda v: v // 3), source, mask), made]
        values = {"thing and colour": share(found), "seam": sum(a for a, _ in seams) / sum(b for _, b in seams)}
        return Found(values, shown)

    def captions(self) -> Found:
        """Pictures of hand-written captions: what is found of them, and how sharp they are compared with renders."""
        asked, strange = hand_written_captions()
        asked, strange = some(asked, self.count), some(strange, max(1, self.count // 4))
        made = [self.anew(text, seed=n) for n, (text, _) in enumerate(asked)]
        renders = gradient(tensors([self.draw(scene(**dict(place="meadow") | shown, seed=n))
                                    for n, (_, shown) in enumerate(asked)]))
        odd = [self.anew(text, seed=n) for n, text in enumerate(strange)]
        values = {"hand-written captions": share_of_all(self.hits(made, [shown for _, shown in asked])),
                  "sharpness beside renders": gradient(tensors(made)) / renders,
                  "sharpness with words never seen": gradient(tensors(odd)) / renders}
        return Found(values, [*made, *odd])

    def styles(self) -> Found:
        """One picture of each style for some places: how often the style is found."""
        words = [(place, style) for place in some(PLACES, max(1, self.count // 8)) for style in STYLES]
        made = [self.anew(f"{STYLE_WORDS[style][0]} of a {PLACE_WORDS[place][0]}") for place, style in words]
        return Found({"style in pictures drawn anew": share_of_all(self.hits(made, [dict(style=s) for _, s in words]))},
                     made)

    def samplers(self) -> Found:
        """The same prompt with every sampler, in few steps and many: how much of it is found."""
        shown = dict(place="meadow", time="night", thing="house", colour="red")
        made = [self.anew("a red house in a meadow at night", steps=steps, sampler_name=name)
                for steps in self.sampler_steps for name in SAMPLERS]
        return Found({"every sampler, few steps and many": share_of_all(self.hits(made, [shown] * len(made)))}, made)

    def sizes(self) -> Found:
        """Pictures of 0.75 and 1.25 times the usual size: how much of the prompt is found."""
        asked = some(hand_written_captions()[0], max(1, self.count // 4))
        sides = [self.size * 3 // 4, self.size * 5 // 4]
        made = [self.anew(text, size=side, seed=n) for side in sides for n, (text, _) in enumerate(asked)]
        hits = self.hits(made, [shown for _, shown in asked] * len(sides))
        return Found({f"captions at {sides[0]} and {sides[1]} px": share_of_all(hits)}, made)


    def networks(self) -> Found:
        """Pictures of some places: plain, with the LoRA, and with the embedding; nothing without a catalog of both."""
        if not self.catalog or not (self.catalog.loras() and self.catalog.embeddings()):
            return Found()
        places = some([place for place in PLACES if place not in ("sea", "desert")], max(1, self.count // 8))
        said = [PLACE_WORDS[place][0] for place in places]
        glass = [self.anew(f"{STYLE}, {words} <lora:{train_lora.NAME}:1>", seed=n) for n, words in enumerate(said)]
        renders = [self.draw(scene(place=place, style=STYLE, seed=n)) for n, place in enumerate(places)]
        tales = [self.anew(f"{words}, {train_embedding.NAME}", seed=n) for n, words in enumerate(said)]
        mood = self.hits(tales, [dict(season="winter", weather="snow")] * len(places))
        values = {"stained glass: lead beside renders": lead(tensors(glass)) / lead(tensors(renders)),
                  "winter-tale: winter and snow": share_of_all(mood)}
        plain = [self.anew(words, seed=n) for n, words in enumerate(said)]
        return Found(values, [image for row in zip(plain, glass, tales) for image in row])


def lead(pictures: Tensor) -> float:
    """Fraction of pictures (N, 3, H, W) in [-1, 1] that is nearly black."""
    return float((pictures.amax(1) < -0.55).float().mean())


def share(hits: list[bool]) -> float:
    return sum(hits) / max(1, len(hits))


def share_of_all(hits: dict[str, list[bool]]) -> float:
    return share([hit for own in hits.values() for hit in own])
