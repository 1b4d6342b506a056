"""Files of fields: written as a stream, read as a record."""

from gen.io.fieldfile import FieldFile, read_fields, write_fields

__all__ = ["FieldFile", "read_fields", "write_fields"]
