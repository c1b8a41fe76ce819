"""The clouds of the development mock, one module each. They use no socket and no clock: the time is an argument."""
