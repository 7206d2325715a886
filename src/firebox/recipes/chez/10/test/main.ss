(display (string-upcase "ok\n"))
