"""The kernel and /etc: netlink, routes, namespaces, capabilities, host names."""
