(println (upper-case "ok"))
(exit)
