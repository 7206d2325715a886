(print (string/ascii-upper "ok"))
