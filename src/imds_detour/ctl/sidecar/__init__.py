"""What the sidecar does all day: follow the mocks, and keep the redirects true."""
