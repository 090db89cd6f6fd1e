"""The whole service inside the test process."""
