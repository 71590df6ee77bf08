"""Static files with hashed names, also inside our ES modules' import lines."""

import re
from collections.abc import Callable
from typing import Any

from whitenoise.storage import CompressedManifestStaticFilesStorage

OUR_FOLDERS = ("annotate/", "training/", "webapp/")


class StaticStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # whitenoise ships no types
    """Rewrites `import … from "./x.js"` too, so that a module never loads a stale sibling from the browser's cache.

    Scripts of other packages stay as they are: some name files that they do not ship, in comments and source maps.
    """

    support_js_module_import_aggregation = True
    manifest_strict = True

    def url_converter(self, name: str, *args: Any, **kwargs: Any) -> Callable[[re.Match[str]], str]:
        """The function that rewrites one reference found in the file `name`."""
        if name.endswith(".js") and not name.startswith(OUR_FOLDERS):
            return lambda match: match.group(0)
        convert: Callable[[re.Match[str]], str] = super().url_converter(name, *args, **kwargs)
        return convert
