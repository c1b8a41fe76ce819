"""Hosts in network namespaces, and the programs that run on them."""
