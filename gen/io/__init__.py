"""Files of fields: written as a stream, read as a record."""

from gen.io.fieldfile import FieldFile, open_fields, read_fields, write_fields
from gen.io.rows import Rows, Values, selected

__all__ = ["FieldFile", "Rows", "Values", "open_fields", "read_fields", "selected", "write_fields"]
