(println (upper-case "ok"))
