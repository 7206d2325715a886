(print (string.upper "ok"))
