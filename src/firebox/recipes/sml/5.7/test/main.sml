print (String.map Char.toUpper "ok\n");
