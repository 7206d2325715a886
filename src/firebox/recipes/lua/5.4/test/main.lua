goto done
print("not OK")
::done::
print(utf8.char(79, 75))
