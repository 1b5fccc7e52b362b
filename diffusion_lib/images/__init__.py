"""From image files to tensors: pixels, kinds of files, and the cache of decoded images."""
