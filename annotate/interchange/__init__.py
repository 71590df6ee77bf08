"""Preference data in and out of foreign formats: one module per format, streams in, rows out, no database.

A new format is a module here, and its line in `importing` or `exporting`.
"""

from annotate.interchange.exporting import EXPORTS, ExportFormat, export_lines
from annotate.interchange.importing import FORMATS, ImportFormat, read_file

__all__ = ["EXPORTS", "FORMATS", "ExportFormat", "ImportFormat", "export_lines", "read_file"]
