"""Decoders of chunk bytes, one file per family; `registry.build_chain` is the entry."""
