"""nftables, over netlink."""
