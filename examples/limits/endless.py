"""A program that never ends: the wall clock or the processor clock ends it. ⏳"""

print("⏳ round and round ...", flush=True)
while True:
    pass
