module Main exposing (main)

import Html exposing (text)


main =
    text "OK"
