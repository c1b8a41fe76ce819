"""Legacy iptables, through python-iptables in a process of its own."""
