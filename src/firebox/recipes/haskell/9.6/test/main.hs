import qualified Data.Map as Map
import qualified Data.Text as Text
import Text.Printf (printf)

main :: IO ()
main = printf "%s\n" (Text.unpack (Text.toUpper (Map.fromList [(1 :: Int, Text.pack "ok")] Map.! 1)))
