"""A metadata service of every cloud, for development."""
