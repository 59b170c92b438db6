"""A site's directives without a site: a book made of texts, and series as they were recorded."""

from __future__ import annotations

from pathlib import Path

from tiltd.daemon.core.model import FilePrint, Fingerprint, TiltSeries
from tiltd.plugins.imod.book import Book
from tiltd.plugins.imod.settings import ImodSettings
from tiltd.plugins.imod.shelf import Shelf

GOLDEN = Path(__file__).parents[1] / "golden" / "batchruntomo"
TABLE = (GOLDEN / "directives.csv").read_text()
FOLDER = "/site/templates"
VIEWS = 41


def book_of(
    texts: dict[str, str], *, table: str = TABLE, settings: ImodSettings | None = None, trouble: str = ""
) -> Book:
    """Bare names lie in the site's folder of templates, whatever they are."""
    placed = {name if name.startswith("/") else f"{FOLDER}/{name}": text for name, text in texts.items()}
    layers = ("scope template", "system template", "user template", "directive file")
    shelf = Shelf(
        texts=placed,
        troubles={f"{FOLDER}/{trouble}": "cannot be read: Permission denied"} if trouble else {},
        places=dict.fromkeys(layers, (FOLDER,)),
        table=table,
        table_path="directives.csv" if table else "",
    )
    return Book(settings or ImodSettings(), shelf)


def recorded(case: str, *, table: str = TABLE) -> Book:
    """The book of a site whose directive file is that of a recorded run."""
    text = (GOLDEN / case / "batch.adoc").read_text()
    return book_of({"batch.adoc": text}, table=table, settings=ImodSettings(directive_file="batch.adoc"))


def series_of(side_px: int, **more: object) -> TiltSeries:
    """A recorded series: square images of two bytes a pixel, 41 views from -60 to 60 degrees."""
    size = 1024 + side_px * side_px * VIEWS * 2
    file = FilePrint(relative_path="in/TS.st", size_bytes=size, piece_bytes=65536, head_sha256="0" * 64)
    values = {
        "tilt_series_name": "TS",
        "kind": "stack",
        "fingerprint": Fingerprint(files=(file,)),
        "stack_path": "in/TS.st",
        "tilt_angles_deg": tuple(-60.0 + 3 * n for n in range(VIEWS)),
        "image_size": (side_px, side_px),
    }
    return TiltSeries(**(values | more))
