"""Enlarging pictures, and reading the data in picture files."""

from anyio import to_thread
from fastapi import APIRouter, HTTPException
from PIL import Image
from starlette.responses import Response

from api.backend import Backend, Here
from api.models import (
    ErrorAnswer, ExtrasBatchAnswer, ExtrasBatchRequest, ExtrasImageAnswer, ExtrasImageRequest, ExtrasRequest,
    InterrogateRequest,
    PictureRequest, PngInfoAnswer)
from api.pictures import encode_picture, json_with_pictures, picture_bytes, written_in
from api.strict import StrictRoute
from pipeline.errors import InvalidRequest
from pipeline.geometry import Size
from pipeline.infotext import apply_backcompat, parameters_line, parse
from pipeline.metadata import read_metadata
from pipeline.uploads import count_pixels, open_file, open_picture
from pipeline.upscaling import Upscaler, cover, find_upscaler, upscale

router = APIRouter(tags=["extras"], route_class=StrictRoute)

MAX_SIDE = 16384
"""Pixels per side of an enlarged picture."""
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
    check(body)

    def work(text: str) -> str:
        file = picture_bytes(text, field, here.fetcher)
        with here.engine.shelf.reading(pixels_in_use(file, field, body), field):
            return enlarged_file(file)

    def enlarged_file(file: bytes) -> str:
        enlarged = enlarge(open_picture(file, field, over_api=True).image, body)
        found = read_metadata(file, field)
        texts = {"parameters": found.infotext} | found.items | {"postprocessing": said}
        return encode_picture(enlarged, options.samples_format, quality=options.jpeg_quality, metadata=options.enable_pnginfo,
                              texts=texts)

    options = here.settings.options
    said = parameters_line({"Postprocess " + name: value for name, value in done(body).items()})
    images = [await to_thread.run_sync(work, text, limiter=here.pictures) for text in texts]
    return f"<p>{said}</p>", images


def check(body: ExtrasRequest) -> None:
    """Raise InvalidRequest for missing features."""
    for name in ("gfpgan_visibility", "codeformer_visibility"):
        if getattr(body, name) > 0:
            raise InvalidRequest(name, f"{name} must be 0, as face restoration is not supported; got {getattr(body, name)}")
    for name in ("upscaler_1", "upscaler_2"):
        find_upscaler(getattr(body, name), name)


def pixels_in_use(file: bytes, field: str, body: ExtrasRequest) -> int:
    """Pixels of a picture and of its enlarged copy. Raises InvalidRequest."""
    before = Size(*open_file(file, field).size)
    scale = scale_of(before, body)
    after = int(before.width * scale) * int(before.height * scale)
    if find_upscaler(body.upscaler_1, "upscaler_1") is None or max(before) * scale > MAX_SIDE:
        after = 0
    elif body.upscaler_2 != "None" and body.extras_upscaler_2_visibility:
        after *= 2
    return before.width * before.height + after


def scale_of(size: Size, body: ExtrasRequest) -> float:
    """The factor for a picture of that size, before cropping."""
    return body.upscaling_resize if body.resize_mode == 0 else max(
        body.upscaling_resize_w / size.width, body.upscaling_resize_h / size.height)


def enlarge(image: Image.Image, body: ExtrasRequest) -> Image.Image:
    """The picture as the request asks. Raises InvalidRequest if it would be too large."""
    first, second = (find_upscaler(getattr(body, name), name) for name in ("upscaler_1", "upscaler_2"))
    if first is None:
        return image
    size = Size(body.upscaling_resize_w, body.upscaling_resize_h)
    scale = scale_of(Size(*image.size), body)
    if max(image.size) * scale > MAX_SIDE:
        raise InvalidRequest("upscaling_resize",
                             f"upscaling_resize: the picture would have more than {MAX_SIDE} pixels on a side")

    def by(upscaler: Upscaler) -> Image.Image:
        if body.resize_mode == 0:
            return upscale(image, scale, upscaler)
        return cover(image, size, upscaler, crop=body.upscaling_crop)

    enlarged = by(first)
    if second is None or not body.extras_upscaler_2_visibility:
        return enlarged
    return Image.blend(enlarged, by(second), body.extras_upscaler_2_visibility)


def done(body: ExtrasRequest) -> dict[str, object]:
    """Infotext parameters for the enlargement, without their prefix "Postprocess "."""
    if body.upscaler_1 == "None":
        return {}
    by = {"upscale by": body.upscaling_resize} if body.resize_mode == 0 else {
        "upscale to": f"{body.upscaling_resize_w}x{body.upscaling_resize_h}"}
    if body.resize_mode == 1 and body.upscaling_crop:
        by["crop to"] = by["upscale to"]
    second = {"upscaler 2": body.upscaler_2} if body.upscaler_2 != "None" and body.extras_upscaler_2_visibility else {}
    return by | {"upscaler": body.upscaler_1} | second
