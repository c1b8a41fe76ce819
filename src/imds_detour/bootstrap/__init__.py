"""What runs before main(): each way of starting the interpreter, and the start sequence that they share."""
