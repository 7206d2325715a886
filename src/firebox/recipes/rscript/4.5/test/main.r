cat(toupper("ok\n"))
