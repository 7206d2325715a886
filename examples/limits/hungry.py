"""A program that wants all the memory there is: it gets its share and no more. 🐘"""

print("🐘 more, more, more ...", flush=True)
eaten = []
while True:
    eaten.append(bytearray(16 * 1024 * 1024))
