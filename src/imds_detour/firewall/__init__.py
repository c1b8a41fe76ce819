"""The rules as values, and the firewalls that apply them."""
