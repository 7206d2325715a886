#lang racket
(displayln (string-upcase "ok"))
