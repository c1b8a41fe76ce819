"""A replacement for html.entities: html.escape, which the sidecar's page uses, needs no names of characters.

The real tables are the largest module of the bundle. Only html.unescape and html.parser read them.
"""

html5: dict[str, str] = {}
