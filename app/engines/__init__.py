"""Text generation behind one small Protocol."""
