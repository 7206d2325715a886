{-# LANGUAGE OverloadedStrings #-}

import Control.Concurrent.Async (concurrently)
import Control.Parallel (par)
import Data.Aeson (decode, encode)
import Data.Attoparsec.Text (decimal, parseOnly)
import qualified Data.HashMap.Strict as HashMap
import Data.List.Split (splitOn)
import Data.MemoTrie (memo)
import qualified Data.Vector.Algorithms.Intro as Intro
import qualified Data.Vector.Unboxed as Vector
import System.Random (mkStdGen, randomR)
import qualified Text.Megaparsec as Megaparsec
import Text.Regex.TDFA ((=~))

main :: IO ()
main = do
  (left, right) <- concurrently (pure (1 :: Int)) (pure 2)
  let sorted = Vector.modify Intro.sort (Vector.fromList [3, right, left])
      (drawn, _) = randomR (1, 6 :: Int) (mkStdGen 1)
      checks =
        [ Vector.toList sorted == [1, 2, 3]
        , drawn >= 1 && drawn <= 6
        , splitOn "," "a,b" == ["a", "b"]
        , decode (encode [1 :: Int, 2]) == Just [1 :: Int, 2]
        , parseOnly decimal "42" == Right (42 :: Int)
        , HashMap.lookup "a" (HashMap.fromList [("a" :: String, 1 :: Int)]) == Just 1
        , memo (+ 1) (1 :: Int) == 2
        , Megaparsec.parseMaybe (Megaparsec.chunk "ab" :: Megaparsec.Parsec () String String) "ab" == Just "ab"
        , ("abc" :: String) =~ ("b+" :: String)
        ]
  drawn `par` putStrLn (if and checks then "OK" else show checks)
