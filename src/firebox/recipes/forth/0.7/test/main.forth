." OK" cr
