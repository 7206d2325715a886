import bz2
import ctypes
import decimal
import json
import lzma
import sqlite3
import ssl
import sys
import zoneinfo

assert sys.flags.dev_mode is False
assert json.loads("[1]") == [1] and decimal.Decimal(1) / 4 == decimal.Decimal("0.25")
assert lzma.decompress(lzma.compress(b"a")) == bz2.decompress(bz2.compress(b"a")) == b"a"
assert sqlite3.connect(":memory:").execute("select 42").fetchone() == (42,)
assert ssl.OPENSSL_VERSION and ctypes.CDLL(None) and zoneinfo.ZoneInfo("Europe/Vienna")
print("OK")
