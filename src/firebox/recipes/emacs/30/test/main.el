(princ (upcase "ok\n"))
