"""Parsers of metadata: bytes in, value objects out. No I/O of their own."""
