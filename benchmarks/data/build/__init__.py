"""Data sets that are built from public files which may be fetched, but are not copied here."""
