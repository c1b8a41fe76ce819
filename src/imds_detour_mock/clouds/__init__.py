"""The clouds that the development mock speaks for: a module each, values only; no sockets, and now is an argument."""
