BEGIN { print toupper("ok") }
