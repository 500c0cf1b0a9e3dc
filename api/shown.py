"""Converts pictures that browsers cannot show to PNG, so that they can be painted on."""

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from api.backend import Backend
from api.pictures import png_bytes
from pipeline.infotext import png_info
from pipeline.uploads import count_pixels, open_picture


async def shown_picture(request: Request) -> Response:
    """POST a file's bytes: answers the picture as PNG, upright and in sRGB. Raises InvalidRequest."""
    here: Backend = request.app.state.backend
    file = await request.body()

    def convert() -> bytes:
        with here.engine.shelf.reading(count_pixels(file, "image"), "image"):
            upload = open_picture(file, "image")
            return png_bytes(upload.image, png_info(None), upload.exif)

    data = await to_thread.run_sync(convert, limiter=here.pictures)
    return Response(data, media_type="image/png")
