import std/strutils

echo "ok".toUpperAscii
