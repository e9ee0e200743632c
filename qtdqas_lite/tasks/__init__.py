"""The applications of the book's part on use: images, time series, acting."""
