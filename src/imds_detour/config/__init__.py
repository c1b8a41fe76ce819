"""What the user wants, as values. Pure: nothing in here acts."""
