printf("%s\n", upper("ok"));
