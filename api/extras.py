"""Enlarging pictures, and reading the data in picture files."""

from dataclasses import fields

from anyio import to_thread
from fastapi import APIRouter, HTTPException
from starlette.responses import Response

from api.backend import Backend, Here
from api.models import (
    ErrorAnswer, ExtrasBatchAnswer, ExtrasBatchRequest, ExtrasImageAnswer, ExtrasImageRequest, ExtrasRequest,
    InterrogateRequest,
    PictureRequest, PngInfoAnswer)
from api.pictures import encode_picture, json_with_pictures, picture_bytes, written_in
from api.strict import StrictRoute
from pipeline.errors import InvalidRequest
from pipeline.extras import Extras, enlarge
from pipeline.geometry import Size
from pipeline.infotext import apply_backcompat, parse
from pipeline.metadata import read_metadata
from pipeline.uploads import count_pixels, open_file, open_picture

router = APIRouter(tags=["extras"], route_class=StrictRoute)

MAX_PICTURES = 256


@router.post("/sdapi/v1/png-info")
async def png_info(body: PictureRequest, here: Here) -> PngInfoAnswer:
    """Read the generation data in a picture file."""
    def read() -> PngInfoAnswer:
        file = picture_bytes(body.image.strip(), "image", here.fetcher)
        with here.engine.shelf.reading(count_pixels(file, "image"), "image"):
            found = read_metadata(file, "image")
        text = found.infotext or ""
        return PngInfoAnswer(info=text, items=written_in(found), parameters=apply_backcompat(parse(text)),
                             comments=list(found.notes))

    return await to_thread.run_sync(read, limiter=here.pictures)


@router.post("/sdapi/v1/extra-single-image", response_model=ExtrasImageAnswer)
async def extra_single_image(body: ExtrasImageRequest, here: Here) -> Response:
    """Enlarge a picture."""
    html, images = await enlarge_all(body, [body.image], "image", here)
    return answer("image", images[0], html)


@router.post("/sdapi/v1/extra-batch-images", response_model=ExtrasBatchAnswer)
async def extra_batch_images(body: ExtrasBatchRequest, here: Here) -> Response:
    """Enlarge several pictures."""
    html, images = await enlarge_all(body, [item.data for item in body.imageList], "imageList", here)
    return answer("images", images, html)


def answer(name: str, pictures: str | list[str] | None, html: str) -> Response:
    return Response(json_with_pictures(name, pictures, {"html_info": html}), media_type="application/json")


@router.post("/sdapi/v1/interrogate", responses={404: {"model": ErrorAnswer, "description": "There is no captioning model."}})
async def interrogate(body: InterrogateRequest) -> None:
    """Describe a picture; there is no model for it, so always 404."""
    raise HTTPException(404, "Model not found")


async def enlarge_all(body: ExtrasRequest, texts: list[str], field: str, here: Backend) -> tuple[str, list[str]]:
    """(a description in HTML, the pictures in base64). Raises InvalidRequest."""
    if len(texts) > MAX_PICTURES:
        raise InvalidRequest(field, f"{field}: at most {MAX_PICTURES} pictures, got {len(texts)}")
    extras = Extras(**{spec.name: getattr(body, spec.name) for spec in fields(Extras)})
    upscalers = here.upscalers
    await to_thread.run_sync(extras.check, upscalers)

    def work(text: str) -> str:
        file = picture_bytes(text, field, here.fetcher)
        pixels = extras.pixels_in_use(Size(*open_file(file, field).size))
        with here.engine.shelf.reading(pixels, field):
            return enlarged_file(file)

    def enlarged_file(file: bytes) -> str:
        enlarged = enlarge(open_picture(file, field, over_api=True).image, extras, upscalers, options)
        found = read_metadata(file, field)
        texts = {"parameters": found.infotext} | found.items | {"postprocessing": extras.infotext}
        return encode_picture(enlarged, options.samples_format, quality=options.jpeg_quality, metadata=options.enable_pnginfo,
                              texts=texts)

    options = here.settings.options
    images = [await to_thread.run_sync(work, text, limiter=here.pictures) for text in texts]
    return f"<p>{extras.infotext}</p>", images
