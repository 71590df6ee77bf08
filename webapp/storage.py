"""Static files with hashed names, also inside our ES modules' import lines."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticStorage(CompressedManifestStaticFilesStorage):
    """Rewrites `import … from "./x.js"` too, so that a module never loads a stale sibling from the browser's cache."""

    support_js_module_import_aggregation = True
    manifest_strict = True
