"""Published studies of counting and position in convolutional networks, run again, claim by claim."""
