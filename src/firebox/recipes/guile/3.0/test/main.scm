(use-modules (srfi srfi-1) (ice-9 match))
(match (filter odd? (iota 4))
  ((1 3) (display "OK\n")))
