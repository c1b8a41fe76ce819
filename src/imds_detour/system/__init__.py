"""What the kernel and /etc say: addresses, routes, namespaces, capabilities, hosts."""
