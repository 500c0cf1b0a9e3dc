"""A result of the page in the journal: the job that made it, and its request."""

from pipeline.errors import PalimpsestError
from pipeline.journal import Entry, Journal, Picture
from pipeline.processing import StableDiffusionProcessingImg2Img
from ui.stream import Folders, Panel
from ui.visit import Visit


class Jobs:
    """Finds them. All methods take the page's results and the index of the selected one, and raise PalimpsestError."""

    def __init__(self, panel: Panel, journal: Journal | None, folders: Folders):
        self.panel, self.journal, self.folders = panel, journal, folders

    def owner(self, results: Visit, index: int) -> tuple[Entry, Picture]:
        """The journal's entry of the selected picture's job, and the picture in it."""
        result = results.at(index)
        found = self.journal and self.journal.find(result.path)
        if not found:
            raise PalimpsestError("This picture is not in the history: it was deleted, or no history is kept.")
        return found

    def request(self, results: Visit, index: int) -> StableDiffusionProcessingImg2Img:
        """The request of the selected picture's job."""
        p = self.journal.request(self.owner(results, index)[0].id, outpath_samples=self.folders.samples,
                                 outpath_grids=self.folders.grids)
        if p is None:
            raise PalimpsestError("A source picture of this job no longer exists.")
        return p
