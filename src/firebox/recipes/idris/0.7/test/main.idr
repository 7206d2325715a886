module Main

import Data.String

main : IO ()
main = putStrLn (toUpper "ok")
