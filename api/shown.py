"""Converts files for the page: pictures that browsers cannot show to PNG, and masks to the grey mask that they count as."""

from collections.abc import Callable

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from api.backend import Backend
from api.pictures import png_bytes
from pipeline.infotext import png_info
from pipeline.options import number
from pipeline.painted import seen
from pipeline.uploads import MAX_PIXELS, Upload, count_pixels, open_picture


async def shown_picture(request: Request) -> Response:
    """POST a file's bytes: answers the picture as PNG, upright and in sRGB. Raises InvalidRequest."""
    return await answered(request, "image", 0, lambda upload: Response(
        png_bytes(upload.image, png_info(None), upload.exif), media_type="image/png"))


async def shown_mask(request: Request) -> Response:
    """POST a file's bytes, with a picture's width and height in the address: answers a grey PNG of that size, 255: regenerate here.

    It is stretched as Inpaint upload stretches a mask; its own size is in the header Palimpsest-Size. Raises InvalidRequest.
    """
    width, height = (number(name, request.query_params.get(name), int, 1, MAX_PIXELS) for name in ("width", "height"))

    def draw(upload: Upload) -> Response:
        mask = seen(upload.image, width, height)
        return Response(png_bytes(mask, png_info(None), None), media_type="image/png",
                        headers={"Palimpsest-Size": f"{upload.image.width}x{upload.image.height}"})

    return await answered(request, "mask", width * height, draw)


async def answered(request: Request, field: str, more: int, answer: Callable[[Upload], Response]) -> Response:
    """What `answer` makes of the request's file, once there is room for its pixels and as many `more`."""
    here: Backend = request.app.state.backend
    file = await request.body()

    def work() -> Response:
        with here.engine.shelf.reading(count_pixels(file, field) + more, field):
            return answer(open_picture(file, field))

    return await to_thread.run_sync(work, limiter=here.pictures)
