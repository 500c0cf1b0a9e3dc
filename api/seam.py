"""The seam of an inpainted picture, measured and blended."""

import numpy as np
from anyio import to_thread
from fastapi import APIRouter
from PIL import Image
from starlette.responses import Response

from api.backend import Here
from api.models import SeamAnswer, SeamItem, SeamRequest
from api.pictures import encode_picture, json_with_pictures, picture_bytes
from api.strict import StrictRoute
from pipeline.errors import InvalidRequest
from pipeline.images import flatten
from pipeline.infotext import RECEIPT
from pipeline.masking import create_binary_mask
from pipeline.metadata import read_metadata
from pipeline.seam import WAYS, Seam, blend, measure, told
from pipeline.uploads import count_pixels, open_picture

router = APIRouter(tags=["extras"], route_class=StrictRoute)


@router.post("/sdapi/v1/seam", response_model=SeamAnswer)
async def seam(body: SeamRequest, here: Here) -> Response:
    """How far the edge of a mask is seen in an inpainted picture, and that picture with its seam blended; an addition to A1111."""
    if body.blend and body.blend not in WAYS:
        raise InvalidRequest("blend", f"blend must be one of {', '.join(WAYS)} or empty, got {body.blend[:100]!r}")
    options = here.settings.options

    def work() -> bytes:
        files = {}
        for field in ("image", "source", "mask"):
            if not getattr(body, field):
                raise InvalidRequest(field, f"{field} is missing: a picture in base64")
            files[field] = picture_bytes(getattr(body, field).strip(), field, here.fetcher)
        with here.engine.shelf.reading(sum(count_pixels(file, field) for field, file in files.items()), "image"):
            return answered(files)

    def answered(files: dict[str, bytes]) -> bytes:
        pictures = {field: open_picture(file, field, over_api=True).image for field, file in files.items()}
        result, source = (np.asarray(flatten(pictures[field], options.img2img_background_color)) for field in ("image", "source"))
        mask = np.asarray(create_binary_mask(pictures["mask"], round=False))
        before = described(measure(result, source, mask))
        if not body.blend:
            return json_with_pictures("image", None, {"seam": before, "blended": None, "outside": None})
        blended = blend(result, source, mask, body.blend)
        found = read_metadata(files["image"], "image")
        texts = {name: text for name, text in found.items.items() if name != RECEIPT}
        texts["parameters"] = told(found.infotext or "", body.blend, blended.outside)
        encoded = encode_picture(Image.fromarray(blended.image), options.samples_format, quality=options.jpeg_quality,
                                 metadata=options.enable_pnginfo, texts=texts)
        return json_with_pictures("image", encoded, {"seam": before, "blended": described(measure(blended.image, source, mask)),
                                                     "outside": blended.outside})

    return Response(await to_thread.run_sync(work, limiter=here.pictures), media_type="application/json")


def described(seam: Seam) -> dict[str, object]:
    """A seam as the answer has it."""
    return SeamItem(word=seam.word, ratio=seam.ratio, jump=seam.jump, contrast=seam.contrast, edge=seam.edge).model_dump()
