"""Hosts in network namespaces, and what runs in them."""
