"""``report.html``: one page about one result, made of its manifest when it is published.  No network.

The page is made here and not on the node, because here is known what the runner cannot know: the verdict, the
rule, what was predicted and what earlier attempts failed by.  Pictures and curves come from the node, and are
judged as a stranger's: pictures are embedded by their bytes, curves drawn from numbers, names escaped.

* ``gather.py``  what of the staged files a page can show: ``curves.json``, and pictures
* ``svg.py``     numbers -> drawings
* ``page.py``    manifest, curves and pictures -> the page; ``style.py`` is its look
"""

from .gather import gather
from .page import page

__all__ = ["gather", "page"]
