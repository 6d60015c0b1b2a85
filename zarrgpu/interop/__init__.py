"""Other libraries' conventions over zarrgpu's arrays and loaders: one module per library.

Each imports its library inside functions, so that this package costs nothing where it is absent.
"""
