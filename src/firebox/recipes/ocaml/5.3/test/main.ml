let () = print_endline (String.uppercase_ascii "ok")
