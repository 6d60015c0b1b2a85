"""Where bytes live; `resolve.resolve_store` turns a path or URL into a store and a path in it."""
